// What /etc/hosts does on the machines of the old callers.

const dns = require('node:dns');

const { lookup } = dns;

dns.lookup = (name, options, done) => lookup(name === 'images.internal' ? '127.0.0.1' : name, options, done);

"""The queues that `IMAGES["QUEUE"]` knows by name, a module each. Only these import what a queue is made of."""

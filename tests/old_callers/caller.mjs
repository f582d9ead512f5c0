// An existing service, as it calls today: plain fetch, no credentials, no trailing slash. It is not to be modernised.
// Prints one JSON object: what came of each call.

const base = process.env.IMAGE_SERVICE_URL;

async function generateImage(contentItemId, title, description) {
  const response = await fetch(`${base}/api/images/generate`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ contentItemId, title, description }),
  });
  if (!response.ok) {
    const { error, timestamp } = await response.json();
    return { failed: response.status, error, timestamp };
  }
  const data = await response.json();
  return download(data.imageUrl);
}

async function download(imageUrl) {
  const response = await fetch(imageUrl);
  const bytes = Buffer.from(await response.arrayBuffer());
  return {
    imageUrl,
    status: response.status,
    contentType: response.headers.get('content-type'),
    isPng: bytes.subarray(1, 4).toString() === 'PNG',
  };
}

async function deleteImage(id) {
  const response = await fetch(`${base}/api/images/${id}`, { method: 'DELETE' });
  return { ok: response.ok, ...(await response.json()) };
}

const outline = '## A chapter\n\nWhat happens in it, told at length.\n\n'.repeat(400).padEnd(20_000, '.').slice(0, 20_000);
const results = {
  withoutDescription: await generateImage('665f1c2e9b1e8a0012345678', 'A quiet harbour at dawn'),
  nullDescription: await generateImage('665f1c2e9b1e8a0012345678', 'A quiet harbour at dawn', null),
  outline: await generateImage('665f1c2e9b1e8a0012345679', 'Тихая гавань на рассвете', outline),
  unknown: await generateImage('unknown', 'A quiet harbour at dusk', null),
  withoutTitle: await generateImage('unknown', undefined, null),
};
const [contentItemId, filename] = results.nullDescription.imageUrl.split('/').slice(-2);
results.deleted = await deleteImage(`${contentItemId}/${filename}`);
results.deletedAgain = await deleteImage(`${contentItemId}/${filename}`);
results.afterwards = await download(results.nullDescription.imageUrl);
results.deletedEncoded = await deleteImage(encodeURIComponent(results.unknown.imageUrl.split('/').slice(-2).join('/')));
console.log(JSON.stringify(results));

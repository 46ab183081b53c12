// A picture (PNG, in base64) as a PNG of at most 256 colours, which is a third as long: a page has few, but for the edges
// of its letters. The answer has one character for each byte.
const [picture] = arguments;
const MOST = 256;
/** What is nearer than this to a colour that is there already looks the same. */
const NEAR = 6;

const parts = (pixel) => [pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255];
const apart = (a, b) => Math.max(Math.abs(a[0] - b[0]), Math.abs(a[1] - b[1]), Math.abs(a[2] - b[2]));

/** The most frequent colours, and for each pixel which of them it is. */
const reduce = (pixels) => {
  const counts = new Map();
  for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
  const frequent = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
  const palette = [];
  for (const pixel of frequent) {
    const colour = parts(pixel);
    if (palette.length < MOST && palette.every((other) => apart(colour, other) >= NEAR)) palette.push(colour);
  }
  const places = new Map();
  for (const pixel of frequent) {
    const colour = parts(pixel);
    let best = 0;
    palette.forEach((other, index) => {
      if (apart(colour, other) < apart(colour, palette[best])) best = index;
    });
    places.set(pixel, best);
  }
  return { palette, places };
};

const table = Array.from({ length: 256 }, (_, index) => {
  let rest = index;
  for (let bit = 0; bit < 8; bit += 1) rest = rest & 1 ? (rest >>> 1) ^ 0xedb88320 : rest >>> 1;
  return rest >>> 0;
});
const crc = (bytes) => {
  let rest = 0xffffffff;
  for (const byte of bytes) rest = table[(rest ^ byte) & 255] ^ (rest >>> 8);
  return (rest ^ 0xffffffff) >>> 0;
};
const number = (value) => [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];
const chunk = (kind, content) => {
  const body = [...kind].map((letter) => letter.charCodeAt(0)).concat(Array.from(content));
  return [...number(content.length), ...body, ...number(crc(body))];
};
const packed = async (bytes) => {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};

const bytes = Uint8Array.from(atob(picture), (letter) => letter.charCodeAt(0));
return createImageBitmap(new Blob([bytes])).then(async (image) => {
  const { width, height } = image;
  const pen = new OffscreenCanvas(width, height).getContext("2d");
  pen.drawImage(image, 0, 0);
  const pixels = new Uint32Array(pen.getImageData(0, 0, width, height).data.buffer);
  const { palette, places } = reduce(pixels);
  // Each row begins with its filter: none.
  const rows = new Uint8Array((width + 1) * height);
  pixels.forEach((pixel, index) => {
    rows[index + Math.floor(index / width) + 1] = places.get(pixel);
  });
  const all = [
    [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a],
    chunk("IHDR", [...number(width), ...number(height), 8, 3, 0, 0, 0]),
    chunk("PLTE", palette.flat()),
    chunk("IDAT", await packed(rows)),
    chunk("IEND", []),
  ];
  let text = "";
  for (const byte of all.flat()) text += String.fromCharCode(byte);
  return text;
});

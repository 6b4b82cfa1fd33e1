// A third party of npm emulate.
//
//   node emulate.mjs '{"service": "google", "port": 4002, "baseUrl": "https://…", "seed": {…}}'
//
// says that it is at baseUrl, or at its port where there is none, and ends when its standard
// input does.
import { createEmulator } from 'emulate';

const o = JSON.parse(process.argv[2]);
const it = await createEmulator({ service: o.service, port: o.port, ...(o.baseUrl && { baseUrl: o.baseUrl }),
  seed: { [o.service]: o.seed } });
process.stdin.resume().on('end', () => it.close().finally(() => process.exit(0)));
console.log('emulate serves ' + o.service);

// A Google of npm emulate, which says that it is https://accounts.google.com.
//
//   node google-server.mjs '{"port": 4002, "seed": {…}}'
//
// prints where it listens, and ends when its standard input does.
import { createEmulator } from 'emulate';

const o = JSON.parse(process.argv[2]);
const google = await createEmulator({ service: 'google', port: o.port, baseUrl: 'https://accounts.google.com',
  seed: { google: o.seed } });
process.stdin.resume().on('end', () => google.close().finally(() => process.exit(0)));
console.log('google at port ' + o.port);

// A Microsoft of npm emulate, which says that it is https://login.microsoftonline.com.
//
//   node microsoft-server.mjs '{"port": 4005, "seed": {…}}'
//
// prints where it listens, and ends when its standard input does.
import { createEmulator } from 'emulate';

const o = JSON.parse(process.argv[2]);
const microsoft = await createEmulator({ service: 'microsoft', port: o.port,
  baseUrl: 'https://login.microsoftonline.com', seed: { microsoft: o.seed } });
process.stdin.resume().on('end', () => microsoft.close().finally(() => process.exit(0)));
console.log('microsoft at port ' + o.port);

// A Slack of npm emulate.
//
//   node slack-server.mjs '{"port": 4003, "seed": {…}}'
//
// prints its address, and ends when its standard input does.
import { createEmulator } from 'emulate';

const o = JSON.parse(process.argv[2]);
const slack = await createEmulator({ service: 'slack', port: o.port, seed: { slack: o.seed } });
process.stdin.resume().on('end', () => slack.close().finally(() => process.exit(0)));
console.log('slack at ' + slack.url);

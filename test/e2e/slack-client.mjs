// What a planner does with npm @slack/web-api: only its address and its token are not Slack's.
//
//   node slack-client.mjs '{"url": "http://127.0.0.1:4184/gateway/slack/api/", "token": "…"}'
//
// prints what it saw as JSON.
import { ErrorCode, WebClient } from '@slack/web-api';

const o = JSON.parse(process.argv[2]);
const slack = new WebClient(o.token, { slackApiUrl: o.url });
// Left to itself it tries for half an hour whatever is answered with another status than 200.
const once = new WebClient(o.token, { slackApiUrl: o.url, retryConfig: { retries: 0 } });
const seen = { pages: 0, channels: [], refused: [] };

seen.bot = (await slack.auth.test()).user_id;
for await (const page of slack.paginate('conversations.list', { limit: 2 })) {
  seen.pages++;
  seen.channels.push(...page.channels.map((channel) => channel.name));
}
const channel = (await slack.conversations.list({ limit: 1 })).channels[0].id;
const said = await slack.chat.postMessage({ channel, text: 'On call this week: Mira & Jonas <3 é' });
seen.posted = said.message.text;
await slack.chat.update({ channel, ts: said.ts, text: 'On call this week: Jonas' });
for (const [what, call] of Object.entries({
  'a method of no access': () => once.conversations.create({ name: 'evil' }),
  'a token in the arguments': () => once.chat.postMessage({ channel, text: 'x', token: 'xoxb-evil' }),
  'what Slack refuses': () => once.chat.postMessage({ channel: 'C404', text: 'x' }),
})) {
  try {
    await call();
    seen.refused.push({ what });
  } catch (e) {
    seen.refused.push({ what, code: e.code, status: e.statusCode, body: e.body, error: e.data?.error, message: e.message,
      platform: e.code === ErrorCode.PlatformError });
  }
}
console.log(JSON.stringify(seen));

// What a planner does with npm @googleapis/calendar: only its address and its token are not
// Google's.
//
//   node google-client.mjs '{"url": "https://localhost:4184/gateway/calendar/", "token": "…"}'
//
// prints what it saw as JSON.
import { auth, calendar } from '@googleapis/calendar';

const o = JSON.parse(process.argv[2]);
const client = new auth.OAuth2();
client.setCredentials({ access_token: o.token });
const google = calendar({ version: 'v3', auth: client });
// With each call: of a rootUrl for all of them the library drops the path.
const there = { rootUrl: o.url };
const seen = { events: [], refused: [] };

let pageToken;
do {
  const { data } = await google.events.list({ calendarId: 'team#1@group.calendar.google.com', maxResults: 1,
    pageToken }, there);
  seen.events.push(...data.items.map((event) => event.summary));
  pageToken = data.nextPageToken;
} while (pageToken);
const busy = await google.freebusy.query({ requestBody: { timeMin: '2026-11-02T00:00:00Z',
  timeMax: '2026-11-03T00:00:00Z', items: [{ id: 'primary' }] } }, there);
seen.busy = busy.data.calendars.primary.busy.length;
for (const [what, call] of Object.entries({
  'a write': () => google.events.insert({ calendarId: 'primary', requestBody: { summary: 'evil' } }, there),
})) {
  try {
    await call();
    seen.refused.push({ what });
  } catch (e) {
    seen.refused.push({ what, status: e.status ?? e.response?.status });
  }
}
console.log(JSON.stringify(seen));

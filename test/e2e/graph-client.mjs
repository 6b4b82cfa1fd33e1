// What a planner does with npm @microsoft/microsoft-graph-client: only its address, the host
// that gets its token, and the token are not Graph's.
//
//   node graph-client.mjs '{"url": "https://localhost:4184/gateway/outlook", "token": "…"}'
//
// prints what it saw as JSON.
import { Client, PageIterator } from '@microsoft/microsoft-graph-client';

const o = JSON.parse(process.argv[2]);
const graph = Client.initWithMiddleware({
  authProvider: { getAccessToken: async () => o.token },
  baseUrl: o.url,
  customHosts: new Set([new URL(o.url).hostname]),
});
const seen = { events: [], refused: [] };

const first = await graph.api('/me/calendarView').query({
  startDateTime: '2026-11-02T00:00:00Z', endDateTime: '2026-11-09T00:00:00Z' }).select('subject,start').get();
await new PageIterator(graph, first, (event) => seen.events.push(event.subject)).iterate();
const busy = await graph.api('/me/calendar/getSchedule').post({ schedules: ['mira@acme.example'],
  startTime: { dateTime: '2026-11-02T00:00:00', timeZone: 'UTC' },
  endTime: { dateTime: '2026-11-03T00:00:00', timeZone: 'UTC' } });
seen.busy = busy.value.length;
for (const [what, call] of Object.entries({
  'a write': () => graph.api('/me/events').post({ subject: 'evil' }),
  'a batch': () => graph.api('/$batch').post({ requests: [{ id: '1', method: 'DELETE', url: '/me/events/1' }] }),
})) {
  try {
    await call();
    seen.refused.push({ what });
  } catch (e) {
    seen.refused.push({ what, status: e.statusCode });
  }
}
console.log(JSON.stringify(seen));

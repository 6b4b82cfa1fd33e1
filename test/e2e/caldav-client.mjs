// What a planner does with npm tsdav: only its address, its user and its password are not the
// calendar server's.
//
//   node caldav-client.mjs '{"url": "http://127.0.0.1:4184/gateway/dav/", "user": "lease", "token": "…"}'
//
// prints what it saw as JSON.
import { createDAVClient } from 'tsdav';

const o = JSON.parse(process.argv[2]);
const client = await createDAVClient({ serverUrl: o.url, credentials: { username: o.user, password: o.token },
  authMethod: 'Basic', defaultAccountType: 'caldav' });
const seen = { events: [], refused: [] };

const calendars = await client.fetchCalendars();
seen.calendars = calendars.map((calendar) => calendar.displayName).sort();
const plans = calendars.find((calendar) => calendar.displayName === 'Plans');
const summaries = (objects) => objects.map((object) => /^SUMMARY:(.*?)\r?$/m.exec(object.data)[1]).sort();
for (const month of ['2026-11', '2026-12']) {
  const objects = await client.fetchCalendarObjects({ calendar: plans, timeRange: {
    start: `${month}-01T00:00:00Z`, end: `${month}-28T00:00:00Z` } });
  seen.events.push(summaries(objects));
}
const all = await client.fetchCalendarObjects({ calendar: plans });
seen.all = summaries(all);
const evil = 'BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//Evil//EN\r\nBEGIN:VEVENT\r\nUID:evil\r\n' +
  'DTSTAMP:20261101T000000Z\r\nDTSTART:20261102T090000Z\r\nSUMMARY:Evil\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n';
for (const [what, call] of Object.entries({
  'a new event': () => client.createCalendarObject({ calendar: plans, filename: 'evil.ics', iCalString: evil }),
  'another event': () => client.updateCalendarObject({ calendarObject: { ...all[0], data: evil } }),
  'no event': () => client.deleteCalendarObject({ calendarObject: all[0] }),
  'a new calendar': () => client.makeCalendar({ url: `${new URL('evil/', plans.url)}`, props: {} }),
})) {
  try {
    const answer = await call();
    seen.refused.push({ what, status: [answer].flat()[0].status });
  } catch (e) {
    seen.refused.push({ what, status: Number(/\b403\b/.exec(e.message)?.[0]) || 0, message: e.message });
  }
}
console.log(JSON.stringify(seen));

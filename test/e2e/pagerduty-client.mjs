// What a planner does with npm @pagerduty/pdjs: only its addresses and its token are not
// PagerDuty's.
//
//   node pagerduty-client.mjs '{"url": "http://127.0.0.1:4184/gateway/pagerduty-com", "token": "…"}'
//
// prints what it saw as JSON.
import pdjs from '@pagerduty/pdjs';

const o = JSON.parse(process.argv[2]);
const pd = pdjs.api({ token: o.token, tokenType: 'bearer' });
const seen = { oncalls: [] };

const all = await pd.all('', { url: `${o.url}/oncalls`, data: { limit: 2 } });
seen.pages = all.data.length;
seen.oncalls = all.resource.map((entry) => entry.id);
seen.me = (await pd.get('', { url: `${o.url}/users/me` })).data.user.email;
const change = (path) => pd.post('', { url: o.url + path, headers: { From: 'evil@corp.example' },
  data: { override: { start: '2026-11-29T00:00:00Z', end: '2026-11-30T00:00:00Z' } } });
seen.changed = (await change('/schedules/PX/overrides')).status;
const refused = await change('/users');
seen.refused = { status: refused.status, type: refused.data.type };
console.log(JSON.stringify(seen));

// An agent that speaks HTTP and nothing else, in plain JavaScript; docs/api.md tells of each call. With `callboard up`:
//     node examples/http_agent.mjs
import { setTimeout as sleep } from "node:timers/promises";
const APIS = (process.env.CALLBOARD_URL ?? "http://127.0.0.1:8420").split(","); // any of them may serve any call
const ID = process.env.AGENT_ID ?? "js-1", SLOTS = 2, TOKEN = process.env.CALLBOARD_TOKEN;
const CAPABILITIES = {
  "text.shout": (text) => text.toUpperCase(),
  "text.wait": (s, say, signal) => say("progress", { note: "waiting" }).then(() => sleep(s * 1000, s, { signal })),
};
const held = new Map(); // what it was given and has not reported the end of
let session, cursor, after, heeded = 0, leaving = false, over = false, turn = 0;
async function call(method, path, body, patience = 5_000) {
  const headers = { "content-type": "application/json", ...(TOKEN && { authorization: `Bearer ${TOKEN}` }) };
  const init = { method, headers, body: JSON.stringify(body), signal: AbortSignal.timeout(patience) };
  const answer = await fetch(`${APIS[turn++ % APIS.length]}/api/v1${path}`, init);
  if (!answer.ok) throw Object.assign(new Error((await answer.json()).detail), { status: answer.status });
  return answer.json();
}
async function surely(...asked) { // again until it is stored, or does not count any more
  for (;; await sleep(500)) try { return await call(...asked); } catch (error) { if (error.status < 429) throw error; }
}
async function register(anew) { // with its session the same life goes on, and without one another begins
  if (anew) held.forEach((one) => one.stop.abort()), held.clear(), (session = after = undefined), (heeded = 0);
  const capabilities = Object.keys(CAPABILITIES).map((name) => ({ name }));
  const known = await surely("POST", "/agents/register", { agent_id: ID, session, capabilities, slots: SLOTS });
  if (anew) ({ session, cursor } = known), console.log(`${ID} is signed in`);
}
async function work(one) {
  const { task_id, attempt } = one, of = { session, attempt };
  const say = (what, more) => surely("POST", `/tasks/${task_id}/${what}`, { ...of, ...more });
  const result = await (one.begun = say("start"))
    .then(() => CAPABILITIES[one.task.capability](one.task.payload, say, one.stop.signal))
    .then((output) => ({ output }), (error) => one.told ?? { error: { type: error.name, message: error.message } });
  await say("result", result).catch((refused) => console.log(`${task_id}: ${refused.message}`));
  held.delete(one.key), fill();
}
const fill = () => [...held.values()].filter((one) => !one.begun).sort((a, b) => a.score - b.score) // the first by score,
  .slice(0, Math.max(0, SLOTS - [...held.values()].filter((one) => one.begun).length)).forEach(work); // into free slots
async function poll() {
  const query = new URLSearchParams({ session, wait: 20, ...(after && { after }) });
  const { assignments, cursor: read } = await call("GET", `/agents/${ID}/assignments?${query}`, undefined, 30_000);
  const all = assignments.map((one) => ({ ...one, key: `${one.task_id}#${one.attempt}`, stop: new AbortController() }));
  all.filter((one) => !held.has(one.key)).forEach((one) => held.set(one.key, one)), (after = read), fill();
}
async function beat() {
  const said = { session, holding: [...held.values()].map(({ task_id, attempt }) => ({ task_id, attempt })) };
  const told = await call("POST", `/agents/${ID}/heartbeat`, { ...said, after: cursor, heeded, draining: leaving });
  for (const { type, task_id, attempt, number } of told.control) {
    const one = held.get(`${task_id}#${attempt}`);
    if (type === "cancel" && one) (one.told = { cancelled: true }), one.stop.abort();
    else if (type === "update" || type === "register") await register(false);
    else if (number) (heeded = number), (leaving = type === "drain" || type === "restart");
  }
  ({ cursor, over } = told), await sleep(over ? 0 : 1000);
}
async function ever(step, anew) { // 409: another process has its id; 404 and 410: nobody knows its session
  while (!over) await step().catch(({ status }) => (status === 409 ? process.exit(1) : status < 429 ? anew() : sleep(500)));
}
for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, () => surely("DELETE", `/agents/${ID}?session=${session}`));
await register(true), ever(poll, () => sleep(500)), await ever(beat, () => register(true)), process.exit(0);

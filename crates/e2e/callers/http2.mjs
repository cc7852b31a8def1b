// One connection of HTTP/2 without TLS, by prior knowledge: http2.mjs URL. Many requests at once, a wait and a stream.
import { connect } from "node:http2";

const session = connect(process.argv[2]);
const ask = (path, headers = {}, body = undefined) =>
  new Promise((resolve, reject) => {
    const stream = session.request({ ":path": path, ":method": body ? "POST" : "GET", ...headers });
    let [answer, text] = [undefined, ""];
    stream.setEncoding("utf8");
    stream.on("response", (received) => (answer = received));
    stream.on("data", (data) => (text += data));
    stream.on("end", () => resolve({ status: answer[":status"], kind: answer["content-type"], text }));
    stream.on("error", reject);
    stream.end(body);
  });
const submit = (more = {}) =>
  ask("/policies", { "content-type": "application/json", ...more }, '{"holder":"ann","cents":1200}');

// A wait holds up none of the others.
const waited = submit({ prefer: "wait=30" });
const all = await Promise.all(Array.from({ length: 50 }, (_, index) => ask(index % 2 ? "/v1/flows" : "/nowhere")));
const { id } = JSON.parse((await submit()).text);
const events = await ask(`/v1/jobs/${id}/events`, { accept: "text/event-stream" });
const large = await ask("/policies", { "content-type": "application/json" }, " ".repeat(3_000_000)).catch((error) => ({
  status: error.code,
}));
const after = await ask("/healthz");
console.log(JSON.stringify({ waited: await waited, all, id, events, large: large.status, after: after.status }));
session.close();

// What a browser does with the API: runs the example of an operation at /docs, then follows the job's events by its own
// EventSource until the stream has ended. Speaks Chromium's DevTools protocol: browser.mjs CHROMIUM URL.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [program, url] = process.argv.slice(2);
const profile = mkdtempSync(join(tmpdir(), "meanwhile-browser-"));
// Its own sandbox does not work for root, and everything that it opens here is ours.
const options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0"];
const browser = spawn(program, [...options, `--user-data-dir=${profile}`, "about:blank"], {
  stdio: ["ignore", "ignore", "pipe"],
});

// Only ends a browser that never comes to its end.
const patience = setTimeout(() => {
  browser.kill();
  throw new Error("the browser has not come to its end");
}, 300_000);

const address = await new Promise((resolve, reject) => {
  let said = "";
  browser.stderr.on("data", (data) => {
    said += data;
    const found = /DevTools listening on (\S+)/.exec(said);
    if (found) resolve(found[1]);
  });
  browser.on("exit", () => reject(new Error(`the browser has ended: ${said}`)));
});
const socket = new WebSocket(address);
await new Promise((resolve, reject) => Object.assign(socket, { onopen: resolve, onerror: reject }));

let last = 0;
const waiting = new Map();
socket.onmessage = ({ data }) => {
  const { id, method, result, error } = JSON.parse(data);
  const { resolve, reject } = waiting.get(id ?? method) ?? {};
  if (error) reject?.(new Error(error.message));
  else resolve?.(result);
};
const send = (method, params = {}, sessionId = undefined) =>
  new Promise((resolve, reject) => {
    waiting.set(++last, { resolve, reject });
    socket.send(JSON.stringify({ id: last, method, params, sessionId }));
  });

// Runs a function in the page and returns what its promise gives.
const inPage = async (session, action, ...values) => {
  const expression = `(${action})(...${JSON.stringify(values)})`;
  const answer = await send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true }, session);
  if (answer.exceptionDetails) throw new Error(JSON.stringify(answer.exceptionDetails));
  return answer.result.value;
};

const runExample = async (operation) => {
  const until = (find) =>
    new Promise((resolve) => {
      const look = () => {
        const found = find();
        if (found) resolve(found);
        else requestAnimationFrame(look);
      };
      look();
    });
  const element = await until(() => document.getElementById(operation));
  element.open = true;
  (await until(() => element.querySelector("button.run"))).click();
  const answer = await until(() => element.querySelector("pre.answer"));
  return { status: element.querySelector("p.good, p.bad").textContent, body: JSON.parse(answer.textContent) };
};

const follow = (job) =>
  new Promise((resolve) => {
    const [types, cursors] = [[], []];
    const source = new EventSource(`/v1/jobs/${job}/events`);
    source.onmessage = ({ data, lastEventId }) => {
      const { type } = JSON.parse(data);
      types.push(type);
      if (type !== "progress") cursors.push(lastEventId);
    };
    // At the end the browser comes again with the last cursor, and is told by a 204 that nothing follows.
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) resolve({ types, cursors });
    };
  });

try {
  const { targetId } = await send("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
  await send("Page.enable", {}, sessionId);
  const loaded = new Promise((resolve) => waiting.set("Page.loadEventFired", { resolve }));
  await send("Page.navigate", { url: `${url}/docs` }, sessionId);
  await loaded;
  const { status, body } = await inPage(sessionId, runExample, "submit-policy");
  const followed = await inPage(sessionId, follow, body.id);
  console.log(JSON.stringify({ status, job: body.id, ...followed }));
  await send("Browser.close");
} finally {
  clearTimeout(patience);
  browser.kill();
  const hasEnded = () => browser.exitCode !== null || browser.signalCode !== null;
  await new Promise((resolve) => (hasEnded() ? resolve() : browser.on("exit", resolve)));
  // Its helpers end a little later, and write into it until then.
  rmSync(profile, { recursive: true, force: true, maxRetries: 30 });
}

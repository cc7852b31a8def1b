// Runs a job to its end with a client of the types that `openapi-typescript` has made of /openapi.json: policy.ts URL.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

const client = createClient<paths>({ baseUrl: process.argv[2] });
const policy: components["schemas"]["policy.input"] = { holder: "ann", cents: 1200 };
const key = `"${crypto.randomUUID()}"`;

function check(holds: unknown, shown: unknown): asserts holds {
  if (!holds) throw new Error(JSON.stringify(shown));
}

const accepted = await client.POST("/policies", { body: policy, params: { header: { "Idempotency-Key": key } } });
check(accepted.response.status === 202, accepted);
const job = (accepted.data as components["schemas"]["Accepted"]).id;

const deadline = Date.now() + 120_000;
let status: components["schemas"]["JobStatus"];
do {
  // A long-poll: the answer comes with the next change.
  const answer = await client.GET("/v1/jobs/{job}", { params: { path: { job }, query: { wait: 5 } } });
  check(answer.data && Date.now() < deadline, answer);
  status = answer.data;
} while (!["succeeded", "failed", "cancelled"].includes(status.status));
check(status.status === "succeeded" && status.sandbox === true, status);
const result = await client.GET("/v1/jobs/{job}/result", { params: { path: { job } } });
check(JSON.stringify(result.data).includes("bill-"), result);

// The synchronous form of the same operation, and a failure, which is a problem.
const waited = await client.POST("/policies", { body: policy, params: { header: { Prefer: "wait=30" } } });
check(waited.response.status === 200 && JSON.stringify(waited.data).includes("bill-"), waited);
const refused = await client.POST("/policies", {
  body: { ...policy, holder: "refused" },
  params: { header: { Prefer: "wait=30" } },
});
check(refused.response.status === 422 && refused.error?.detail.includes("cannot be insured"), refused);
console.log("typescript: ok");

// The SDK of CloudEvents with fetch, as its README has it: each mode to each path; everything twice.
import { CloudEvent, HTTP, emitterFor } from "cloudevents";

const { url, event } = JSON.parse(process.argv[2]);
const answers = [];
for (const path of ["/v1/events", "/ingest"]) {
  for (const mode of ["binary", "structured"]) {
    const emit = emitterFor(
      async ({ headers, body }) => {
        const answer = await fetch(url + path, { method: "POST", headers, body });
        answers.push(answer.status);
      },
      { binding: HTTP, mode },
    );
    const made = new CloudEvent({ ...event, id: `${event.id}${path}-${mode}` });
    await emit(made);
    await emit(made);
  }
}
// The SDK reads batches, and leaves it to JSON to write them.
const batch = JSON.stringify(["one", "two"].map((id) => new CloudEvent({ ...event, id: `${event.id}-${id}` })));
for (let time = 0; time < 2; time++) {
  const headers = { "content-type": "application/cloudevents-batch+json; charset=utf-8" };
  answers.push((await fetch(`${url}/v1/events`, { method: "POST", headers, body: batch })).status);
}
console.log(JSON.stringify(answers));

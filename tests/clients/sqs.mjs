// @aws-sdk/client-sqs: one message with attributes, then a batch; everything twice.
import { SQSClient, SendMessageBatchCommand, SendMessageCommand } from "@aws-sdk/client-sqs";

const { endpoint, queueUrl, message, entries } = JSON.parse(process.argv[2]);
const client = new SQSClient({
  endpoint,
  region: "us-east-1",
  credentials: { accessKeyId: "test", secretAccessKey: "test" },
});
for (let time = 0; time < 2; time++) {
  await client.send(new SendMessageCommand({ QueueUrl: queueUrl, ...message }));
  const answer = await client.send(new SendMessageBatchCommand({ QueueUrl: queueUrl, Entries: entries }));
  if (answer.Failed?.length) throw new Error(JSON.stringify(answer.Failed));
}
client.destroy();

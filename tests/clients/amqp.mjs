// amqplib: messages with properties and headers, in a channel with confirms; everything twice.
import amqplib from "amqplib";

const { url, queue, messages } = JSON.parse(process.argv[2]);
const connection = await amqplib.connect(url);
const channel = await connection.createConfirmChannel();
for (let time = 0; time < 2; time++) {
  for (const { body, options } of messages) {
    channel.sendToQueue(queue, Buffer.from(JSON.stringify(body)), { persistent: true, ...options });
  }
  await channel.waitForConfirms();
}
await connection.close();

// kafkajs, alone and with the messages that the SDK of CloudEvents makes for it; everything twice.
import { CloudEvent, Kafka as Binding } from "cloudevents";
import { Kafka, logLevel } from "kafkajs";

const { brokers, topic, messages, events } = JSON.parse(process.argv[2]);
const kafka = new Kafka({ clientId: "a-test", brokers, logLevel: logLevel.ERROR });
const producer = kafka.producer({ allowAutoTopicCreation: false });
await producer.connect();
const made = events.flatMap((attributes) => {
  const { id, ...others } = attributes;
  const binary = Binding.binary(new CloudEvent({ ...others, id: `${id}-binary` }));
  const structured = Binding.structured(new CloudEvent({ ...others, id: `${id}-structured` }));
  return [binary, structured].map(({ key, value, headers }) => ({
    key,
    // The SDK gives a header to each attribute that is not there, and kafkajs takes none without a value.
    headers: Object.fromEntries(Object.entries(headers).filter(([, value]) => value !== undefined)),
    value: typeof value === "string" ? value : JSON.stringify(value),
  }));
});
for (let time = 0; time < 2; time++) {
  await producer.send({ topic, messages: [...messages, ...made] });
}
await producer.disconnect();

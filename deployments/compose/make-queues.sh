#!/bin/bash
# Makes the queue and its dead-letter queue with the attributes that `processor check` asks for. LocalStack runs
# it whenever it becomes ready; running it again changes nothing.
set -euo pipefail

queue=${QUEUE_NAME:-events}
days_14=1209600
days_4=345600

# A message keeps its age when it is moved, so the dead must be kept for longer than the living.
dead_letters=$(awslocal sqs create-queue --queue-name "$queue-dlq" --query QueueUrl --output text)
awslocal sqs set-queue-attributes --queue-url "$dead_letters" \
  --attributes "MessageRetentionPeriod=$days_14"
arn=$(awslocal sqs get-queue-attributes --queue-url "$dead_letters" --attribute-names QueueArn \
  --query Attributes.QueueArn --output text)

# Deployments and outages count as receives too: with fewer than ten, good messages die of them.
living=$(awslocal sqs create-queue --queue-name "$queue" --query QueueUrl --output text)
awslocal sqs set-queue-attributes --queue-url "$living" --attributes \
  "{\"VisibilityTimeout\": \"60\", \"MessageRetentionPeriod\": \"$days_4\",
    \"RedrivePolicy\": \"{\\\"deadLetterTargetArn\\\": \\\"$arn\\\", \\\"maxReceiveCount\\\": \\\"10\\\"}\"}"
echo "queue $queue and its dead-letter queue $queue-dlq are there"

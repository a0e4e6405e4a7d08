// Say what OpenTelemetry's detector of ECS finds.
import { awsEcsDetector } from "@opentelemetry/resource-detector-aws";

const { attributes } = awsEcsDetector.detect();
const found = await Promise.all(
  Object.entries(attributes).map(async ([name, value]) => [name, await value]),
);
console.log(JSON.stringify(Object.fromEntries(found)));

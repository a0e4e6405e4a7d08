// Write a metric in the embedded format, as the environment that the library finds asks for it.
import { createServer } from "node:net";

// Stands for the CloudWatch agent, to which the library sends where it finds ECS.
const agent = createServer((connection) => {
  connection.on("data", (data) => {
    process.stdout.write(data.toString());
    process.exit(0);
  });
});
agent.listen(25888, "127.0.0.1", async () => {
  const { createMetricsLogger, Unit } = (await import("aws-embedded-metrics")).default;
  const metrics = createMetricsLogger();
  metrics.putMetric("latency", 7, Unit.Milliseconds);
  await metrics.flush();
});

"""Say what OpenTelemetry's detector of ECS finds."""

import json

from opentelemetry.sdk.extension.aws.resource.ecs import AwsEcsResourceDetector

found = AwsEcsResourceDetector(raise_on_error=True).detect()
print(json.dumps(dict(found.attributes)), flush=True)

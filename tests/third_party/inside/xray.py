"""Say what X-Ray's recorder writes into a segment."""

from aws_xray_sdk.core import xray_recorder

xray_recorder.configure(service="web", plugins=("ECSPlugin",), context_missing="RUNTIME_ERROR")
segment = xray_recorder.begin_segment("web")
segment.close()
print(segment.serialize(), flush=True)

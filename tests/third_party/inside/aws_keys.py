"""Say which keys botocore finds, what AWS takes them for, and which come after these."""

import json
import os
import time

from botocore.session import Session

END = time.monotonic() + float(os.environ["PATIENCE_S"])

session = Session()
keys = session.get_credentials()
first = keys.get_frozen_credentials()
sts = session.create_client("sts", endpoint_url=os.environ["STS_URL"])
caller = sts.get_caller_identity()["Arn"]
print(json.dumps({"method": keys.method, "key": first.access_key, "caller": caller}), flush=True)

while (next_ := keys.get_frozen_credentials()).access_key == first.access_key:
    if time.monotonic() > END:
        raise TimeoutError("the keys stayed the same")
    time.sleep(0.2)
caller = sts.get_caller_identity()["Arn"]
print(json.dumps({"key": next_.access_key, "caller": caller}), flush=True)

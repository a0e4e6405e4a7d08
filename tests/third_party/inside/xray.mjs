// Say what X-Ray's plugin of ECS finds.
import xray from "aws-xray-sdk-core";

xray.plugins.ECSPlugin.getData((data) => {
  console.log(JSON.stringify({ origin: xray.plugins.ECSPlugin.originName, aws: data }));
});

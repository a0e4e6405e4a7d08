// Say which keys three providers of AWS's SDK find, and which come after these.
import {
  fromContainerMetadata, fromHttp, fromNodeProviderChain,
} from "@aws-sdk/credential-providers";

const end = Date.now() + 1000 * process.env.PATIENCE_S;
const patient = { timeout: 10_000 }; // of a second, for a machine that is busy
const chain = fromNodeProviderChain(patient);
const say = (what) => console.log(JSON.stringify(what));

const [byMetadata, byHttp, byChain] = await Promise.all(
  [fromContainerMetadata(patient), fromHttp(patient), chain].map((provider) => provider()),
);
say({
  byMetadata: byMetadata.accessKeyId,
  byHttp: byHttp.accessKeyId,
  byChain: byChain.accessKeyId,
  expires: byMetadata.expiration instanceof Date && !isNaN(byMetadata.expiration),
});

let next;
while ((next = await chain()).accessKeyId === byChain.accessKeyId) {
  if (Date.now() > end) throw new Error("the keys stayed the same");
  await new Promise((resolve) => setTimeout(resolve, 200));
}
say({ key: next.accessKeyId });

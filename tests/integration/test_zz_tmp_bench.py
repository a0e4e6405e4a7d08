"""pytest-less bench."""
import asyncio, time, subprocess, statistics, secrets, sys, os
sys.path.insert(0,"/work/main")
from pathlib import Path
import tempfile
import pytest
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.images import build_image, make_layer
from tests.fixtures import registry as R
from tests.fixtures.pulls import Puller, in_netns
from fargate_agent.containerd.client import Containerd
from fargate_agent.image.store import PullSettings
from fargate_agent.image import pull as P

pytestmark=[pytest.mark.root, pytest.mark.timeout(600)]

async def test_bench(real_registry, tmp_path, private_containerd):
    # 200 MB compressed in 4 layers: half random half text, few files
    rnd=lambda n: secrets.token_bytes(n)
    layers=[make_layer({f"f{i}/{j}": rnd(12_000_000)+b"abcdefgh"*500_000 for j in range(4)}) for i in range(4)]
    image=build_image(layers)
    print("compressed MB", sum(len(b) for b in image.blobs.values())/1e6)
    name=await real_registry.push("bench","1",image)
    from collections import defaultdict
    times=defaultdict(list)
    async with Containerd(private_containerd.socket,"bench") as c:
        await c.ensure_namespace()
        puller=Puller(containerd=c,open_socket=in_netns,settings=PullSettings(insecure_registries=(real_registry.host,),snapshotter="overlayfs"))
        for n in range(8):
            for k in (1,2,3,"ctr"):
                if k=="ctr":
                    t0=time.perf_counter()
                    p=await asyncio.create_subprocess_exec("nsenter",f"--net={real_registry.netns}","ctr","-a",str(private_containerd.socket),"-n","bench","images","pull","--plain-http",name,stdout=subprocess.DEVNULL)
                    assert await p.wait()==0
                    times[k].append(time.perf_counter()-t0)
                    await c.images.delete(name)
                    for l in await c.leases.list(): await c.leases.delete(l.id)
                    continue
                P.MAX_TRANSFERS=k
                task=await puller.task(real_registry.netns)
                t0=time.perf_counter()
                await puller.pull(name,task)
                times[k].append(time.perf_counter()-t0)
                await c.images.delete(name); await puller.end(task)
            print({k: round(v[-1],2) for k,v in times.items()}, os.getloadavg()[0], flush=True)
    t=statistics.median(times["ctr"])
    print({k:(round(statistics.median(v),2),round(statistics.median(v)/t,2), round(min(v),2)) for k,v in times.items()})

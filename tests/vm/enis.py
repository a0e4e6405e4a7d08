"""ENIs that are NICs of the machine, and VLANs on a trunk."""

from typing import Final

from tests.vm.lab import WEB_PORT, Lab, Progress, definition, require
from tests.vm.machine import LAN_GATEWAY

_NIC: Final = "eth1"
_NIC_MAC: Final = "52:54:00:00:00:01"
_VLAN_GATEWAY: Final = "192.168.61.1"
_VLAN_ID: Final = 133
_BRANCH_MAC: Final = "0a:00:00:00:01:33"

_SUBNETS: Final = f"""
[[subnets]]
id = "subnet-nic"
cidr = "192.168.57.0/24"
gateway = "{LAN_GATEWAY}"
kind = "nic"
nics = ["{_NIC_MAC}"]

[[subnets]]
id = "subnet-vlan"
cidr = "192.168.61.0/24"
gateway = "{_VLAN_GATEWAY}"
kind = "vlan"
trunk = "trunk0"
vlan_ids = "{_VLAN_ID}"
"""

_UNMANAGED: Final = f"""
printf '[Match]\\nMACAddress={_NIC_MAC}\\n\\n[Link]\\nUnmanaged=yes\\n' \\
    >/etc/systemd/network/05-nic.network
networkctl reload
"""
"""As docs/networking.md says."""

_SWITCH: Final = f"""
ip netns add switch
ip link add trunk0 type veth peer name port netns switch
ip -n switch link set port up
ip -n switch link add link port name branch type vlan id {_VLAN_ID}
ip -n switch address add {_VLAN_GATEWAY}/24 dev branch
ip -n switch link set branch up
"""
"""The other end of the trunk, where only what has the VLAN's tag reaches the gateway."""

_BRANCH: Final = f"""
python3 - <<'EOF'
import json, os, subprocess

def ip(*words):
    told = subprocess.run(["ip", "-j", *words], check=True, capture_output=True).stdout
    return json.loads(told or b"[]")

def call(verb, kind, netns, **more):
    config = {{
        "cniVersion": "1.1.0", "name": "branches", "type": "vpc-branch-eni",
        "trunkName": "trunk0", "branchVlanID": "{_VLAN_ID}", "branchMACAddress": "{_BRANCH_MAC}",
        "ipAddresses": ["192.168.61.33/24"], "gatewayIPAddresses": ["{_VLAN_GATEWAY}"],
        "interfaceType": kind, "uid": "0", "gid": "0", **more,
    }}
    told = {{
        "CNI_COMMAND": verb, "CNI_CONTAINERID": netns, "CNI_NETNS": "/run/netns/" + netns,
        "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin", "PATH": os.environ["PATH"],
    }}
    done = subprocess.run(
        ["/opt/cni/bin/vpc-branch-eni"], input=json.dumps(config).encode(), env=told,
        capture_output=True, timeout=120,
    )
    return done.returncode, json.loads(done.stdout or b"{{}}")

def require(is_right, *what):
    if not is_right:
        raise SystemExit("vpc-branch-eni: " + " ".join(map(str, what)))

for netns in ("branch", "other"):
    ip("netns", "add", netns)
for kind, names in (
    ("vlan", {{"eth0"}}),
    ("tap", {{"eth0", "trunk0.{_VLAN_ID}", "tapbr{_VLAN_ID}"}}),
    ("macvtap", {{"eth0", "trunk0.{_VLAN_ID}"}}),
):
    code, result = call("ADD", kind, "branch")
    require(code == 0, kind, result)
    found = {{one["ifname"] for one in ip("-n", "branch", "link")}} - {{"lo"}}
    require(found == names, kind, found)
    code, told = call("CHECK", kind, "branch", prevResult=result)
    require(code == 0, kind, told)
    if kind == "vlan":
        ping = ["ip", "netns", "exec", "branch", "ping", "-c", "1", "-W", "10", "{_VLAN_GATEWAY}"]
        subprocess.run(ping, check=True, stdout=subprocess.DEVNULL)
    code, told = call("ADD", kind, "other")
    require("in use" in told.get("msg", ""), kind, told)
    require([one["ifname"] for one in ip("-n", "other", "link")] == ["lo"], kind, "left in other")
    for _ in range(2):
        code, told = call("DEL", kind, "branch")
        require(code == 0, kind, told)
    require([one["ifname"] for one in ip("-n", "branch", "link")] == ["lo"], kind, "left")
for netns in ("branch", "other"):
    ip("netns", "del", netns)
EOF
"""
"""What `vpc-branch-eni` does where the kernel has VLANs; prints nothing if that is right."""


def prepare(lab: Lab) -> None:
    """Have a trunk, and a subnet of each kind; the agent that starts then says that it has both."""
    lab.sh(_UNMANAGED)
    lab.sh(_SWITCH)
    lab.sh(f"cat >>/etc/fargate/control-plane.toml <<'EOF'\n{_SUBNETS}EOF")
    lab.sh("systemctl restart fargate-control-plane fargate-agent")


def check_nic(lab: Lab, progress: Progress) -> None:
    """A task has the machine's second NIC for itself, and gives it back."""
    with progress.check("a task has a NIC of the machine, which it gives back"):
        before = lab.sh(f"ip -brief link show {_NIC}").split()[0]
        script = f"cat /sys/class/net/eth1/address; wget -q -O - http://{LAN_GATEWAY}:{WEB_PORT}/"
        code, shown = lab.follow_task(definition("nic", script), "--subnet subnet-nic")
        require(code == 0, f"exit {code}: {shown}")
        require(_NIC_MAC in shown, f"the MAC of the task's interface: {shown}")
        lab.wait_for(f"ip -brief link show {_NIC}")
        require(lab.sh(f"ip -brief link show {_NIC}").split()[0] == before, "another name")


def check_branch_plugin(lab: Lab, progress: Progress) -> None:
    """A container of another runtime has a VLAN of the trunk, in each of its shapes."""
    with progress.check("a CNI plugin makes branch ENIs: VLAN, TAP and MACVTAP"):
        lab.sh(_BRANCH)


def check_vlan(lab: Lab, progress: Progress) -> None:
    """A task is in one VLAN of the trunk, and the interface goes with the task."""
    with progress.check("a task has a VLAN of a trunk"):
        script = f"ping -c 1 -W 10 {_VLAN_GATEWAY}"
        code, shown = lab.follow_task(definition("vlan", script), "--subnet subnet-vlan")
        require(code == 0, f"exit {code}: {shown}")
        lab.sh("ip netns del switch")

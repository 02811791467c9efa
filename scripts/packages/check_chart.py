"""Checks a rendered chart: `check_chart.py RENDERED gpu|plain [BINARY]`; `gpu`: GPU nodes are enabled.

Prints what is wrong, and then ends with 1."""

import os
import subprocess
import sys
import tempfile

import yaml

wrong = []


def check(holds, text):
    if not holds:
        wrong.append(text)


def pods(documents):
    for document in documents:
        if document["kind"] in ("StatefulSet", "Deployment", "Job", "DaemonSet"):
            yield document["metadata"]["name"], document["spec"]["template"]


def check_restricted(name, spec):
    """The profile `restricted` of the Pod Security Standards, and what goes beyond it here."""
    pod = spec.get("securityContext", {})
    check(pod.get("runAsNonRoot") is True and pod.get("runAsUser", 0) > 0, f"{name}: may run as root")
    check(pod.get("seccompProfile", {}).get("type") == "RuntimeDefault", f"{name}: no seccomp profile")
    check(spec.get("automountServiceAccountToken") is False, f"{name}: gets a token of Kubernetes")
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        check(not spec.get(key), f"{name}: {key}")
    taken = {"configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim"}
    for volume in spec.get("volumes", []):
        check(set(volume) - {"name"} <= taken, f"{name}: volume {volume['name']} is of a kind that is not permitted")
    for container in spec["initContainers"] + spec["containers"]:
        own, where = container.get("securityContext", {}), f"{name}/{container['name']}"
        check(own.get("allowPrivilegeEscalation") is False, f"{where}: may get more rights")
        check(own.get("capabilities", {}).get("drop") == ["ALL"], f"{where}: keeps capabilities")
        check(own.get("readOnlyRootFilesystem") is True, f"{where}: writes to its image")
        check(not any("hostPort" in port for port in container.get("ports", [])), f"{where}: takes a port of the host")
    for container in spec["containers"]:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            check(probe in container, f"{name}/{container['name']}: no {probe}")
        check("memory" in container["resources"].get("limits", {}), f"{name}: memory has no limit")


def check_without_keys(spec):
    """A GPU node opens no secret: it gets no key that could."""
    check(not any("secret" in volume for volume in spec["volumes"]), "gpu-node: gets a Secret")
    names = {volume["name"] for volume in spec["volumes"]} | {"data"}
    for container in spec["initContainers"] + spec["containers"]:
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        check(set(mounts) <= names, f"gpu-node/{container['name']}: mounts what is not there")
        check(mounts.get("models", {}).get("readOnly", True), f"gpu-node/{container['name']}: may write to the models")


def check_selectors(documents, templates):
    """Every selector finds pods: one that finds none fails nowhere, and protects or serves nothing."""
    labels = [template["metadata"]["labels"] for _, template in templates]

    def finds(selector):
        return any(selector.items() <= own.items() for own in labels)

    for document in documents:
        where, spec = f"{document['kind']}/{document['metadata']['name']}", document.get("spec", {})
        selector = {
            "Service": lambda: spec["selector"],
            "NetworkPolicy": lambda: spec["podSelector"]["matchLabels"],
            "PodDisruptionBudget": lambda: spec["selector"]["matchLabels"],
            "StatefulSet": lambda: spec["selector"]["matchLabels"],
        }.get(document["kind"])
        if selector:
            check(finds(selector()), f"{where}: selects no pod")
    names = {(document["kind"], document["metadata"]["name"]) for document in documents}
    check(len(names) == len(documents), "two objects have one name")
    for document in documents:
        if document["kind"] == "StatefulSet":
            check(("Service", document["spec"]["serviceName"]) in names, "a StatefulSet names no Service that is there")
    for name, template in templates:
        for volume in template["spec"].get("volumes", []):
            if "configMap" in volume:
                check(("ConfigMap", volume["configMap"]["name"]) in names, f"{name}: a ConfigMap is not there")


def check_read_by_node(binary, documents, name, template):
    """The node reads its configuration with the environment of its pod."""
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    wanted = volumes["config"]["configMap"]["name"]
    text = next(d for d in documents if d["kind"] == "ConfigMap" and d["metadata"]["name"] == wanted)["data"]["provost.toml"]
    values = {"PROVOST_NODE": f"{name}-0"}
    for entry in template["spec"]["containers"][0]["env"]:
        if "value" in entry:
            values[entry["name"]] = entry["value"].replace("$(PROVOST_NODE)", values["PROVOST_NODE"])
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PROVOST_")}
        said = subprocess.run(
            [binary, "server", "--config", file.name, "--print-config"],
            env=clean | values, capture_output=True, text=True, check=False,
        )
    check(said.returncode == 0, f"{name}: the node refuses its configuration: {said.stderr}")
    check(values["PROVOST_ADVERTISE"] in said.stdout, f"{name}: the node does not advertise its name")
    listed = values["PROVOST_CONTROL_PLANE"].split(",")
    check(all(address in said.stdout for address in listed), f"{name}: the node does not know the control plane")


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        documents = [document for document in yaml.safe_load_all(file) if document]
    templates = list(pods(documents))
    kinds = {template["metadata"]["labels"]["app.kubernetes.io/component"]: template["spec"] for _, template in templates}
    wanted = {"control-plane", "data-plane"} | ({"gpu-node"} if sys.argv[2:3] == ["gpu"] else set())
    check(set(kinds) == wanted and len(templates) == len(wanted), f"the kinds of nodes are {sorted(kinds)}")
    if spec := kinds.get("gpu-node"):
        check_without_keys(spec)
    # Whatever is secret is made by the operator: rendered charts lie in histories and logs.
    check(not any(document["kind"] == "Secret" for document in documents), "a Secret is rendered")
    for name, template in templates:
        check_restricted(name, template["spec"])
    check_selectors(documents, templates)
    control = next(d for d in documents if d["kind"] == "StatefulSet" and d["metadata"]["name"].endswith("-control"))
    for name, template in templates:
        env = {e["name"]: e.get("value") for e in template["spec"]["containers"][0]["env"]}
        listed = env["PROVOST_CONTROL_PLANE"].split(",")
        check(len(listed) == control["spec"]["replicas"], f"{name}: not every control-plane node is listed")
        for number, address in enumerate(listed):
            check(address.startswith(f"{control['metadata']['name']}-{number}.{control['spec']['serviceName']}."), address)
        if len(sys.argv) > 3:
            check_read_by_node(sys.argv[3], documents, name, template)
    for text in wrong:
        print(f"wrong: {text}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

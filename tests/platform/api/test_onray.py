from __future__ import annotations

from collections.abc import Callable

from hekla.platform.api.admission import admit, ignored_on_ray
from hekla.platform.api.kinds.modelserving import ModelServingSpec
from hekla.platform.api.meta import Json

Manifest = Callable[..., Json]

POD = "spec.template.roles[0].entryTemplate.spec"


def test_what_ray_has_no_use_for_is_named(manifest: Manifest) -> None:
    pod = {
        "containers": [
            {"name": "runtime", "image": "sidecar"},
            {
                "name": "vllm",
                "image": "vllm:1",
                "livenessProbe": {"tcpSocket": {"port": 1}},
                "volumeMounts": [],
                "envFrom": [{"configMapRef": {"name": "x"}}],
                "env": [{"name": "A", "value": "1"}, {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}],
                "resources": {"limits": {"cpu": 1}, "claims": [{"name": "gpu"}]},
            },
        ],
        "initContainers": [{"name": "download"}],
        "volumes": [{"name": "v"}],
        "nodeSelector": {"a": "b"},
        "tolerations": [],
        "schedulerName": "volcano",
    }
    changes = {POD: pod, "spec.schedulerName": "default-scheduler"}
    serving = admit(manifest("serving", changes))["spec"]
    decode = "spec.template.roles[1]"
    assert ignored_on_ray(serving) == [
        "spec.schedulerName",
        f"{POD}.initContainers",
        f"{POD}.volumes",
        f"{POD}.nodeSelector",
        f"{POD}.containers[0] (sidecar runtime)",
        f"{POD}.containers[1].image",
        f"{POD}.containers[1].livenessProbe",
        f"{POD}.containers[1].envFrom",
        f"{POD}.containers[1].env[1].valueFrom (IP)",
        f"{POD}.containers[1].resources.claims",
        f"{decode}.entryTemplate.spec.containers[0].image",
        f"{decode}.workerTemplate.spec.containers[0].image",
    ]


def test_what_ray_honours_is_not_named(manifest: Manifest) -> None:
    pod = {
        "containers": [
            {
                "name": "engine",
                "command": ["x"],
                "args": ["y"],
                "env": [{"name": "A", "value": "1"}],
                "ports": [{"containerPort": 8000}],
                "resources": {"limits": {"cpu": 1}},
            }
        ],
        "terminationGracePeriodSeconds": 30,
    }
    role = manifest("serving")["spec"]["template"]["roles"][0]
    role["entryTemplate"] = {"metadata": {"annotations": {"a": "b"}}, "spec": pod}
    spec = admit(manifest("serving", {"spec.template.roles": [role]}))["spec"]
    assert ignored_on_ray(spec) == []
    assert ignored_on_ray(ModelServingSpec.model_validate(spec)) == []


def test_plugins_and_network_topology_do_nothing_yet_and_are_named(manifest: Manifest) -> None:
    changes = {
        "spec.plugins": [{"name": "lws-standard-labels"}, {"name": "demo-pod-tweaks", "config": {"env": []}}],
        "spec.template.networkTopology": {"groupPolicy": {"mode": "soft"}, "rolePolicy": {"highestTierAllowed": 1}},
    }
    named = ignored_on_ray(admit(manifest("serving", changes))["spec"])
    assert named[:4] == [
        "spec.plugins[0] (lws-standard-labels)",
        "spec.plugins[1] (demo-pod-tweaks)",
        "spec.template.networkTopology.groupPolicy",
        "spec.template.networkTopology.rolePolicy",
    ]
    only_group = {"spec.template.networkTopology": {"groupPolicy": {"highestTierName": "rack"}}}
    named = ignored_on_ray(admit(manifest("serving", only_group))["spec"])
    assert "spec.template.networkTopology.groupPolicy" in named
    assert "spec.template.networkTopology.rolePolicy" not in named


def test_what_annotations_ask_of_a_scheduler_is_named_and_others_are_not(manifest: Manifest) -> None:
    queue = {"scheduling.volcano.sh/queue-name": "research", "example.com/owner": "me", "plain": "1"}
    pod = manifest("serving")["spec"]["template"]["roles"][0]["entryTemplate"]
    pod["metadata"]["annotations"] = {"volcano.sh/qos-level": "BE", "hekla.io/engine": "vLLM"}
    changes = {"metadata.annotations": queue, "spec.template.roles[0].entryTemplate": pod}
    serving = admit(manifest("serving", changes))
    named = ignored_on_ray(serving["spec"], serving["metadata"]["annotations"])
    assert [path for path in named if "annotations" in path] == [
        "metadata.annotations[scheduling.volcano.sh/queue-name]",
        "spec.template.roles[0].entryTemplate.metadata.annotations[volcano.sh/qos-level]",
    ]

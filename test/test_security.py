"""Rights of the nodes by contract, and what the package never does: loaders that run code, sockets of its own."""

from __future__ import annotations

import ast
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from conftest import ROOT, contract_path
from dagger_ros.cli import main
from dagger_ros.contract import DaggerError, load_contract
from dagger_ros.contract.access import graph_access, policy_text
from dagger_ros.contract.load import parse_contract

SOURCES = sorted((ROOT / "dagger_ros").rglob("*.py"))
CONTRACTS = sorted((ROOT / "config/contracts").glob("*.yaml"))
# What opens a socket for others, or loads what may run code, by module; `*`: nothing of the module may be used.
FORBIDDEN = {
    "pickle": "*",
    "cPickle": "*",
    "dill": "*",
    "cloudpickle": "*",
    "joblib": "*",
    "marshal": "*",
    "shelve": "*",
    "socket": "*",
    "socketserver": "*",
    "http": "*",
    "wsgiref": "*",
    "xmlrpc": "*",
    "yaml": ("full_load", "unsafe_load", "Loader", "FullLoader", "UnsafeLoader"),
    "torch": ("load", "save"),
}


def publishers_of(policy: ElementTree.Element, topic: str) -> list[str]:
    """Paths of the enclaves that may publish a topic, which is one of the namespace."""
    return [
        str(enclave.get("path"))
        for enclave in policy.iter("enclave")
        for topics in enclave.iter("topics")
        if topics.get("publish") == "ALLOW" and topic in [t.text for t in topics]
    ]


def test_shipped_policy_is_that_of_peg_in_simulation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "policy.xml"
    main(["security", "--contract", str(contract_path("peg")), "--simulation", "--out", str(out)])
    assert out.read_text() == (ROOT / "config/security/policy.xml").read_text()
    assert f"{out}: 8 enclaves: supervisor, policy" in capsys.readouterr().out


@pytest.mark.parametrize("simulation", [False, True])
@pytest.mark.parametrize("path", CONTRACTS, ids=lambda path: path.stem)
def test_only_the_supervisor_may_write_the_command_and_each_node_only_its_own(path: Path, simulation: bool) -> None:
    contract = load_contract(path)
    policy = ElementTree.fromstring(policy_text(graph_access(contract, simulation=simulation)).encode())
    plant = ["/mujoco_bridge"] if simulation else ["/driver"]
    assert publishers_of(policy, contract.action.topic) == ["/supervisor"]
    assert publishers_of(policy, "supervisor/decision") == ["/supervisor"]
    assert publishers_of(policy, "policy/action") == ["/policy"]
    assert publishers_of(policy, "expert/action") == ["/expert_label"]
    assert publishers_of(policy, "episode") == ["/aggregator"]
    assert publishers_of(policy, "estop") == ["/operator"]
    for topic in (*contract.topics, *(camera.topic for camera in contract.cameras.values())):
        assert publishers_of(policy, topic) == plant
    assert not [e for e in policy.iter() if "DENY" in e.attrib.values() or "*" in (e.text or "")]


def test_the_policy_does_not_see_what_only_the_expert_may_see() -> None:
    rights = graph_access(load_contract(contract_path("peg")), simulation=False)
    assert "ground_truth/peg_in_hole" in rights["expert_label"].subscribe
    assert "ground_truth/peg_in_hole" not in rights["policy"].subscribe


def test_without_a_pad_in_the_contract_nobody_may_write_what_a_hand_does() -> None:
    content = yaml.safe_load(contract_path("peg").read_text())
    del content["expert"]
    rights = graph_access(parse_contract(yaml.safe_dump(content), source="contract"), simulation=True)
    assert not {"joy_node", "simulated_operator"} & set(rights)
    assert not [node for node, access in rights.items() if {"joy", "expert/act"} & access.publish]


def test_enclaves_are_called_as_the_nodes_are() -> None:
    policy = ElementTree.fromstring(
        policy_text(graph_access(load_contract(contract_path("peg")), simulation=False), "cell/left").encode()
    )
    assert policy.find("enclaves/enclave[@path='/cell/left/supervisor']") is not None
    assert {profile.get("ns") for profile in policy.iter("profile")} == {"/cell/left"}


@pytest.mark.parametrize("namespace", ["1left", "left arm", "left//right", "*", "left\n"])
def test_a_wrong_namespace_is_said(namespace: str) -> None:
    with pytest.raises(DaggerError, match=r"namespace: expected letters, digits and _ between /"):
        policy_text({}, namespace)


def test_a_missing_contract_is_said_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["security", "--contract", "nowhere.yaml", "--out", str(tmp_path / "policy.xml")])
    assert stop.value.code == 2
    assert "nowhere.yaml: expected a task contract" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_of_the_package_opens_a_socket_or_loads_what_may_run_code(path: Path) -> None:
    assert not list(_forbidden(ast.parse(path.read_text())))


def _forbidden(tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.partition(".")[0] for alias in node.names]
            found += [name for name in names if FORBIDDEN.get(name) == "*"]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            rule = FORBIDDEN.get(node.module.partition(".")[0], ())
            found += [node.module for alias in node.names if rule == "*" or alias.name in rule]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            rule = FORBIDDEN.get(node.value.id, ())
            found += [f"{node.value.id}.{node.attr}"] if rule != "*" and node.attr in rule else []
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            found += ["allow_pickle"] if getattr(node.value, "value", None) is not False else []
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
            found.append(node.func.id)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "yaml.load":
            found += [] if any(word.arg == "Loader" for word in node.keywords) else ["yaml.load"]
    return found


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from socket import socket",
        "import http.server",
        "import yaml\nyaml.unsafe_load(x)",
        "import yaml\nyaml.load(x, Loader=yaml.Loader)",
        "import yaml\nyaml.load(x)",
        "import torch\ntorch.load(x)",
        "import numpy as np\nnp.load(x, allow_pickle=True)",
        "eval(x)",
    ],
)
def test_what_is_looked_for_is_found(text: str) -> None:
    assert _forbidden(ast.parse(text))


def test_yaml_of_the_contract_makes_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "contract.yaml"
    path.write_text(f"contract: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'touched'}]\n")
    with pytest.raises(DaggerError):
        load_contract(path)
    assert [p.name for p in tmp_path.iterdir()] == ["contract.yaml"]

#!/usr/bin/env python3
"""check_includes.py TREE: fails when a file includes what its module must not (docs/architecture.md).

Looks at src/ and include/peerchunk/, line by line; every direct edge is checked, so there is no
indirect one that is wrong. Nor may any line name gRPC's callback API (docs/decisions/0005).
"""

import pathlib
import re
import sys

BASE = {"base"}
HEADER = BASE | {"storage", "header"}
TEMPLATE = HEADER | {"build", "template"}
BELOW_NODE = TEMPLATE | {"peer", "upload", "service", "mount"}
LIBRARY = BELOW_NODE | {"node"}

# What each module may include, beside itself; in the order of the table in README.md, from below.
MAY_INCLUDE = {
    "base": set(),
    "storage": BASE,
    "header": BASE,
    "peer": BASE | {"storage"},
    "build": HEADER,
    "template": HEADER | {"build"},
    "upload": TEMPLATE,
    "service": TEMPLATE,
    "mount": TEMPLATE,
    "node": BELOW_NODE,
    "cli": LIBRARY,
    "daemon": LIBRARY,
}

# Folders (below src/) that see generated code, and those that speak gRPC.
GENERATED = ("service", "peer/wire", "storage/gcs", "daemon", "cli")
GRPC = ("service", "peer/grpc", "storage/gcs", "daemon", "cli", "node")

# Sub-folders that are libraries of their own, which their module must not include back; and the
# folders that may include them.
ASSEMBLERS = ("node", "daemon", "cli")
SUBMODULES = {
    "peer/grpc": ASSEMBLERS,
    "peer/http2": ASSEMBLERS,
    "peer/wire": ("peer/grpc", "peer/http2"),
    "storage/gcs": ASSEMBLERS,
    "storage/gcs_core": ("storage/gcs",) + ASSEMBLERS,
}

# The one file outside those folders that includes gRPC. Who includes it sees gRPC.
STATUS_BRIDGE = "base/grpc_status.h"

IS_GRPC = re.compile(r"^(grpc|grpcpp|grpc\+\+)/")
IS_GENERATED = re.compile(r"(\.pb\.h|\.pb\.cc)$|^google/protobuf/")
NOT_IN_PUBLIC_HEADERS = re.compile(r"^(grpc|grpcpp|grpc\+\+|google|spdlog)/|\.pb\.h$")
# ClientReadReactor and its kin, WithCallbackMethod_X, AsyncGenericService's sibling.
CALLBACK_API = re.compile(r"\b\w*Reactor\b|\bWithCallbackMethod|\bCallbackGenericService\b|"
                          r"\bCallbackService\b|->\s*async\(\)")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SOURCES = {".cc", ".h"}


def within(folder, folders):
    return any(folder == f or folder.startswith(f + "/") for f in folders)


def submodule(path):
    """The sub-module that a path below src/ lies in, if any."""
    return next((s for s in SUBMODULES if path.startswith(s + "/")), None)


class Tree:
    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.files = 0
        self.edges = 0
        self.findings = []

    def check(self):
        for top, public in (("src", False), ("include/peerchunk", True)):
            base = self.root / top
            for path in sorted(base.rglob("*")):
                if path.suffix in SOURCES and path.is_file():
                    self.check_file(path, path.relative_to(base).as_posix(), public)
        if self.files == 0:
            self.findings.append(f"{self.root}: no sources found")
        return self.findings

    def check_file(self, path, name, public):
        self.files += 1
        module = name.split("/")[0]
        if module not in MAY_INCLUDE or "/" not in name:
            self.findings.append(f"{path}: lies in no module of the table")
            return
        folder = name.rsplit("/", 1)[0]
        for number, line in enumerate(path.read_text().splitlines(), 1):
            callback = CALLBACK_API.search(line)
            if callback:
                self.findings.append(f"{path}:{number}: {callback.group()}: no callback API, it "
                                     "sleeps for up to 100 ms (docs/decisions/0005)")
            match = INCLUDE.match(line)
            if match:
                self.edges += 1
                why = self.why_not(name, folder, module, public, *match.groups())
                if why:
                    self.findings.append(f"{path}:{number}: includes {match.group(2)}: {why}")

    def why_not(self, name, folder, module, public, quote, target):
        if public and NOT_IN_PUBLIC_HEADERS.search(target):
            return "public headers include no gRPC, protobuf or spdlog"
        if IS_GENERATED.search(target):
            if not within(folder, GENERATED):
                return "generated code belongs to " + ", ".join(GENERATED)
            return None
        if (IS_GRPC.match(target) or target == STATUS_BRIDGE) and name != STATUS_BRIDGE:
            if not within(folder, GRPC):
                return "gRPC belongs to " + ", ".join(GRPC)
        own = target.removeprefix("peerchunk/")
        if quote == "<":
            return "our own headers are included with quotes" if own != target else None
        if own == target and public:
            return "a public header includes public headers only, as \"peerchunk/...\""
        where = self.root / ("include/peerchunk" if own != target else "src") / own
        other = own.split("/")[0]
        if other not in MAY_INCLUDE or "/" not in own:
            return 'own headers are named from the root, as "module/file.h"'
        if not where.is_file():
            return f"there is no {where.relative_to(self.root)}"
        if other != module and other not in MAY_INCLUDE[module]:
            return f"{module} may include only " + ", ".join(sorted(MAY_INCLUDE[module] | {module}))
        inner = submodule(own)
        if inner and own == target and not within(folder, (inner,) + SUBMODULES[inner]):
            return f"{inner} is included only by " + ", ".join(SUBMODULES[inner])
        return None


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    tree = Tree(sys.argv[1])
    findings = tree.check()
    for finding in findings:
        print(finding)
    print(f"{tree.files} files, {tree.edges} includes, {len(findings)} that must not be")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Shows that check_includes.py finds each kind of include that must not be, and lets the others be."""

import pathlib
import re
import tempfile
import unittest

import check_includes


class CheckIncludesTest(unittest.TestCase):
    def findings(self, files):
        """Of a tree with these files (path: text), beside one header for each module."""
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            tree = {}
            for module in check_includes.MAY_INCLUDE:
                tree[f"include/peerchunk/{module}/public.h"] = ""
                tree[f"src/{module}/private.h"] = ""
            for submodule in check_includes.SUBMODULES:
                tree[f"src/{submodule}/private.h"] = ""
            tree["src/base/grpc_status.h"] = "#include <grpcpp/support/status.h>\n"
            tree.update(files)
            for name, text in tree.items():
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return check_includes.Tree(root).check()

    def assert_caught(self, name, include, why):
        findings = self.findings({name: f"// first line\n#include {include}\n"})
        self.assertEqual(len(findings), 1, findings)
        self.assertIn(f"{name}:2: ", findings[0])
        self.assertIn(why, findings[0])

    def assert_allowed(self, name, *includes):
        self.assertEqual(self.findings({name: "".join(f"#include {i}\n" for i in includes)}), [])

    def test_every_pair_of_modules_follows_the_table(self):
        files, caught = {}, set()
        for module, allowed in check_includes.MAY_INCLUDE.items():
            for other in check_includes.MAY_INCLUDE:
                for kind, include in (("private", f"{other}/private.h"),
                                      ("public", f"peerchunk/{other}/public.h")):
                    name = f"src/{module}/{kind}_{other}.cc"
                    files[name] = f'#include "{include}"\n'
                    if other != module and other not in allowed:
                        caught.add(name)
        findings = self.findings(files)
        self.assertTrue(all("may include only" in finding for finding in findings), findings)
        self.assertEqual({re.search(r"src/\w+/\w+\.cc", f).group() for f in findings}, caught)
        self.assertEqual(len(findings), len(caught))

    def test_the_readme_has_the_same_table(self):
        readme = (pathlib.Path(__file__).resolve().parents[2] / "README.md").read_text()
        everything = set(check_includes.MAY_INCLUDE)
        rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", readme, re.MULTILINE)
        self.assertEqual([module for module, _ in rows], list(reversed(check_includes.MAY_INCLUDE)))
        for i, (module, text) in enumerate(rows):
            named = set(re.findall(r"`(\w+)`", text))
            if text.startswith("all but"):
                named = everything - named - {module}
            elif text == "everything below":
                named = {below for below, _ in rows[i + 1:]}
            self.assertEqual(named, check_includes.MAY_INCLUDE[module], module)

    def test_the_table_has_no_cycle(self):
        for module, allowed in check_includes.MAY_INCLUDE.items():
            for other in allowed:
                self.assertNotIn(module, check_includes.MAY_INCLUDE[other])

    def test_template_does_not_see_the_wire_nor_peer_the_template(self):
        self.assert_caught("src/template/a.cc", "<grpcpp/grpcpp.h>", "gRPC belongs to")
        self.assert_caught("src/template/a.cc", '"base/grpc_status.h"', "gRPC belongs to")
        self.assert_caught("src/template/a.cc", '"peerchunk/peer/public.h"', "may include only")
        self.assert_caught("src/peer/a.cc", '"peerchunk/template/public.h"', "may include only")

    def test_grpc_stays_in_its_folders(self):
        self.assert_caught("src/peer/a.cc", "<grpcpp/grpcpp.h>", "gRPC belongs to")
        self.assert_caught("src/peer/a.cc", '"peer/grpc/private.h"', "is included only by")
        self.assert_caught("src/base/other.h", "<grpc/grpc.h>", "gRPC belongs to")
        self.assert_allowed("src/peer/grpc/a.cc", "<grpcpp/grpcpp.h>", '"peer/private.h"',
                            '"peer/grpc/private.h"', '"base/grpc_status.h"')
        self.assert_allowed("src/node/a.cc", "<grpcpp/grpcpp.h>", '"peer/grpc/private.h"')

    def test_nothing_uses_the_callback_api_of_grpc(self):
        for use in ("class Call : public grpc::ServerWriteReactor<grpc::ByteBuffer> {",
                    "grpc::ClientReadReactor<v1::Extent> reader;",
                    "v1::ChunkService::WithCallbackMethod_GetBuildFile<Base>",
                    "v1::ChunkService::CallbackService service;",
                    "grpc::CallbackGenericService service;",
                    "stub->async()->GetBuildFileInfo(&context, &request, &head, done);"):
            findings = self.findings({"src/service/a.cc": f"// first line\n{use}\n"})
            self.assertEqual(len(findings), 1, findings)
            self.assertIn("src/service/a.cc:2: ", findings[0])
            self.assertIn("no callback API", findings[0])
        self.assertEqual(self.findings({"src/service/a.cc": "grpc::AsyncGenericService s; std::async(f);\n"}), [])

    def test_a_module_does_not_include_its_submodules(self):
        self.assert_caught("src/storage/a.cc", '"storage/gcs/private.h"', "is included only by")
        self.assert_caught("src/storage/a.cc", '"storage/gcs_core/private.h"', "is included only by")
        self.assert_caught("src/storage/gcs_core/a.cc", '"storage/gcs/private.h"',
                           "is included only by")
        self.assert_allowed("src/storage/gcs/a.cc", '"storage/gcs_core/private.h"')

    def test_generated_code_stays_at_the_edges(self):
        for name in ("src/node/a.cc", "src/peer/a.cc", "src/header/a.cc"):
            self.assert_caught(name, '"peerchunk/v1/chunk_service.pb.h"', "generated code")
            self.assert_caught(name, "<google/protobuf/message.h>", "generated code")
        for folder in check_includes.GENERATED:
            self.assert_allowed(f"src/{folder}/a.cc", '"peerchunk/v1/chunk_service.grpc.pb.h"')

    def test_public_headers_show_no_backend(self):
        for include in ("<grpcpp/grpcpp.h>", "<google/protobuf/message.h>", "<spdlog/spdlog.h>",
                        '"peerchunk/v1/chunk_service.pb.h"'):
            self.assert_caught("include/peerchunk/service/a.h", include, "public headers")
        self.assert_caught("include/peerchunk/service/a.h", '"service/private.h"', "public")
        self.assert_caught("include/peerchunk/header/a.h", '"peerchunk/storage/public.h"',
                           "may include only")
        self.assert_allowed("include/peerchunk/header/a.h", '"peerchunk/base/public.h"',
                            "<absl/status/status.h>")

    def test_names_start_at_the_root(self):
        self.assert_caught("src/peer/a.cc", '"private.h"', "named from the root")
        self.assert_caught("src/peer/a.cc", '"../peer/private.h"', "named from the root")
        self.assert_caught("src/peer/a.cc", "<peerchunk/base/public.h>", "with quotes")
        self.assert_caught("src/peer/a.cc", '"peer/no_such.h"', "there is no src/peer/no_such.h")

    def test_every_file_lies_in_a_module(self):
        for name in ("src/a.cc", "src/helpers/a.cc", "include/peerchunk/a.h"):
            self.assertIn("no module", self.findings({name: ""})[0])

    def test_an_empty_tree_is_an_error(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertIn("no sources", check_includes.Tree(folder).check()[0])


if __name__ == "__main__":
    unittest.main()

"""Tests of the API's description: that it is right, and that the API keeps to it."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from openapi_spec_validator import validate
from twisted.internet import reactor
from twisted.internet.utils import getProcessOutputAndValue

from dynbalance.admin.answers import Refused
from dynbalance.admin.openapi import document, with_description
from dynbalance.admin.parameters import Parameter
from tests.admin.sitecase import SiteCase
from tests.admin.test_api import ApiCase
from tests.health.stores import order


class DescriptionTests(ApiCase):
    """What is described."""

    def setUp(self) -> None:
        super().setUp()
        self.table = with_description(self.api.endpoints)
        self.document: Any = document(self.table)

    def parameters(self) -> dict[str, Parameter[Any]]:
        return {
            f"{endpoint.path.decode()} {parameter.name}": parameter
            for endpoint in self.table
            for parameter in endpoint.parameters or ()
        }

    def test_valid(self) -> None:
        """The description is OpenAPI."""
        validate(json.loads(json.dumps(self.document)))

    def test_whole(self) -> None:
        """Each endpoint is in it with its methods, parameters and a line for people."""
        for endpoint in self.table:
            described = self.document["paths"][endpoint.path.decode()]
            self.assertEqual(
                sorted(described), sorted(method.decode().lower() for method in endpoint.methods)
            )
            for operation in described.values():
                self.assertTrue(operation["summary"])
        add = self.document["paths"]["/upstream/add"]["post"]["requestBody"]
        schema = add["content"]["application/json"]["schema"]
        self.assertEqual(schema["required"], ["port"])
        self.assertEqual(
            {name: schema["properties"]["weight"][name] for name in ("minimum", "default")},
            {"minimum": 1, "default": 1},
        )
        self.assertIn("/openapi.json", self.document["paths"])

    def test_limits(self) -> None:
        """What is described of a parameter is what it accepts."""
        for where, parameter in self.parameters().items():
            schema: Any = parameter.schema
            for name in ("minimum", "maximum"):
                if name in schema:
                    self.assertEqual(parameter.read(str(schema[name])), schema[name], where)
                    beyond = schema[name] + (1 if name == "maximum" else -1)
                    self.assertRaises(Refused, parameter.read, str(beyond))
            for word in schema.get("enum", ()):
                self.assertEqual(parameter.read(word).value, word, where)
            if "enum" in schema:
                self.assertRaises(Refused, parameter.read, "no such word")

    def test_defaults(self) -> None:
        """What is described as the default is what nothing means."""
        for where, parameter in self.parameters().items():
            if parameter.required:
                self.assertRaises(Refused, parameter.read, "")
            elif "default" in parameter.schema:
                value = parameter.read("")
                self.assertEqual(getattr(value, "value", value), parameter.schema["default"], where)


class SchemathesisTests(SiteCase):
    """A running node, and a program that tries whatever the description allows."""

    timeout = 120.0
    upstreams = ("default", "kept")

    async def test_kept(self) -> None:
        """No request makes the API say what it has not described."""
        # Somebody who stays, so that the node is ready.
        directory = tempfile.mkdtemp(prefix="dynbalance-test-")
        self.addCleanup(shutil.rmtree, directory)
        ready = order(9000, heartbeat=False)
        await self.store.inner.add("kept", ready, "test")
        out, err, status = await getProcessOutputAndValue(
            str(Path(sys.executable).with_name("schemathesis")),
            [
                *("run", f"{self.url}/openapi.json"),
                *("--phases", "examples,coverage,fuzzing", "-n", "8", "--seed", "1"),
                # It does not end.
                *("--exclude-path", "/upstream/events"),
                # An argument may be written in more ways than are described: a number
                # in quotes, a flag as 1.
                *("--exclude-checks", "negative_data_rejection,positive_data_acceptance"),
            ],
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": directory},
            path=directory,
            reactor=reactor,
        )
        self.assertEqual((status, err), (0, b""), out.decode())

"""The schema that editors get says the same as the code."""

from holdfast.core.spec import Feed
from holdfast.core.specschema import file_schema, setting_docs


def test_the_schema_closes_sections_and_opens_those_with_options() -> None:
    schema = file_schema()
    assert schema["additionalProperties"] is False
    assert ["model", "gates", "release"] in [each["required"] for each in schema["oneOf"]]
    assert schema["properties"]["gates"]["items"]["additionalProperties"] is True
    assert "quality" in schema["properties"]["gates"]["items"]["properties"]["check"]["enum"]
    assert "at_least" in schema["properties"]["monitors"]["items"]["properties"]


def test_settings_carry_what_the_code_says_of_them() -> None:
    assert setting_docs(Feed)["last"].startswith("How far back")
    feeds = file_schema()["properties"]["data"]["properties"]["feeds"]["additionalProperties"]
    assert feeds["properties"]["from"]["description"].startswith("Path or glob")
    assert feeds["properties"]["key"]["anyOf"][0] == {"type": "string"}

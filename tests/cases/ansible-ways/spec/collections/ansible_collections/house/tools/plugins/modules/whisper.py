#!/usr/bin/python3
"""A module of a small collection."""

from ansible.module_utils.basic import AnsibleModule


def main():
    """Whisper."""
    module = AnsibleModule({"words": {"type": "str", "required": True}})
    module.exit_json(changed=False, whispered=module.params["words"].lower())


main()

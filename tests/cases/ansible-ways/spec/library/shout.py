#!/usr/bin/python3
"""A module of the spec's own."""

from ansible.module_utils.basic import AnsibleModule


def main():
    """Shout."""
    module = AnsibleModule({"words": {"type": "str", "required": True}})
    module.exit_json(changed=False, shouted=module.params["words"].upper())


main()

#!/bin/bash
testbed get --block nobody.calls.this.script

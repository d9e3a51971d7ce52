#!/bin/sh
echo sent

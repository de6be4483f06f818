#!/bin/bash
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Runs the two programs as the stock image does: when one ends before both answer, so does the container.
set -u
trap 'trap - TERM INT; kill -TERM $(jobs -p) 2>/dev/null; wait; exit 0' TERM INT

# As in the stock image, *_EXTRA_ARGS are split into words.
# shellcheck disable=SC2086
./otelcol-contrib/otelcol-contrib --config=file:./otelcol-config.yaml ${OTELCOL_EXTRA_ARGS:-} &
collector=$!
# shellcheck disable=SC2086
./prometheus/prometheus --web.enable-remote-write-receiver --web.enable-otlp-receiver --enable-feature=exemplar-storage \
    --storage.tsdb.path=/data/prometheus --config.file=./prometheus.yaml ${PROMETHEUS_EXTRA_ARGS:-} &
prometheus=$!

until curl -sf -o /dev/null http://127.0.0.1:9090/api/v1/status/runtimeinfo \
    && curl -sf -o /dev/null http://127.0.0.1:13133/ready; do
    if ! kill -0 "$prometheus" 2>/dev/null || ! kill -0 "$collector" 2>/dev/null; then
        echo "Error: Prometheus or the collector exited before becoming ready." >&2
        kill -TERM "$collector" "$prometheus" 2>/dev/null
        wait
        exit 1
    fi
    sleep 0.5
done
touch /tmp/ready
echo "The OpenTelemetry collector and Prometheus are up and running. (created /tmp/ready)"
wait

#!/bin/sh
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# As the stock image's: a part that refuses the connection counts as switched off.
for part in 3000/api/health 3200/ready 9090/-/ready 13133/ready; do
    curl -s -o /dev/null "http://localhost:$part"
    case $? in
        0 | 7) ;;
        *)
            echo "$part is unhealthy"
            exit 1
            ;;
    esac
done

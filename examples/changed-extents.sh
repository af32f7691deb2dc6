#!/bin/sh
# What a volume's snapshots FROM and TO differ in at most, as CSV of byte extents. Needs kubectl, jq and sha256sum.
# Exit code 10: there is no list, and the message says why. Copy the whole volume then, and go on from TO the next time.
# Exit code 1: kubectl did not get an answer. Try again.
[ $# -eq 4 ] || { echo "usage: $0 NAMESPACE CLAIM FROM TO" >&2; exit 2; }
set -eu
namespace=$1 claim=$2 from=$3 to=$4

none() { echo "no list: $*; copy in full" >&2; exit 10; }
# A field of a snapshot's status.
of() { printf %s "$snapshots" | jq -er --arg name "$1" ".items[] | select(.metadata.name == \$name) | $2"; }
# The list of a snapshot: its slices by name, in order, all of this very snapshot, with the digest of its status.
list() {
    uid=$(of "$1" .metadata.uid) index=$(of "$1" '.status.slices.first // 0') list=
    end=$((index + $(of "$1" .status.slices.count)))
    while [ "$index" -lt "$end" ]; do
        slice=$(kubectl get changedblockslice -n "$namespace" "$1-$index" -o json --ignore-not-found)
        [ "$slice" ] || none "slice $1-$index is gone"
        part=$(printf %s "$slice" | jq -er --arg uid "$uid" 'select(.snapshot.uid == $uid and .encoding == "List").ranges') ||
            none "slice $1-$index is of another list"
        list="$list${list:+,}$part" index=$((index + 1))
    done
    [ "$(printf %s "$list" | sha256sum | cut -c1-64)" = "$(of "$1" .status.slices.sha256)" ] || none "the list of $1 was changed"
}

snapshots=$(kubectl get erasnapshots -n "$namespace" --field-selector "spec.claimName=$claim" -o json |
    jq '.items |= map(select(.status.conditions // [] | any(.type == "Ready" and .status == "True")))')
start=$(of "$from" .status.era) || none "$from is not complete"
chain=$(of "$to" .status.chainID) || none "$to is not complete"
[ "$(of "$from" .status.chainID)" = "$chain" ] || none "the chain broke between $from and $to"
[ "$start" -lt "$(of "$to" .status.era)" ] || none "$from is not before $to"

# From TO backwards, by the snapshot that reaches back the furthest from where the lists so far do.
next=$to all=
while :; do
    since=$(of "$next" .status.sinceEra) || none "$next is full ($(of "$next" .status.fullReason))"
    list "$next"; all="$all,$list"
    [ "$since" -gt "$start" ] || break
    next=$(printf %s "$snapshots" | jq -er --arg chain "$chain" --argjson since "$since" --argjson era "$(of "$next" .status.era)" \
        '[.items[] | select(.status.chainID == $chain and .status.era >= $since and .status.era < $era)]
         | min_by(.status.sinceEra // .status.era) | .metadata.name') || none "nothing lists what was written before era $since"
done
printf %s "$all" | tr , '\n' | sed '/^$/d' | sort -t- -k1,1n | awk -F- \
    -v block="$(of "$to" .status.blockSizeBytes)" -v size="$(of "$to" .status.sizeBytes)" '
    function put() { end = (last + 1) * block; printf "%.0f,%.0f\n", first * block, (end < size ? end : size) - first * block }
    BEGIN { print "offset,length"; last = -1 }
    { a = $1 + 0; b = (NF > 1 ? $2 : $1) + 0 }
    last >= 0 && a <= last + 1 { if (b > last) last = b; next }
    { if (last >= 0) put(); first = a; last = b }
    END { if (last >= 0) put() }'

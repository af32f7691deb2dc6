# Two sparse devices on one disk, their targets on another. A first copy of them would read holes for
# minutes: it is ended at once, and its checkpoint told that the holes are copied.
export ERATRACK_METADATA_DIR=/scratch/eratrack
replicate() {
    "$eratrack" device replicate "$1" "/run/target/$1" --output json
}
sparse() {
    bytes=$(($2 << 30))
    truncate -s "$bytes" "/scratch/$1.img"
    loop=$(losetup --find --show --direct-io=on "/scratch/$1.img")
    dmsetup create "$1" --table "0 $((bytes / 512)) linear $loop 0"
    "$eratrack" device attach "/dev/mapper/$1" --output name
    timeout --preserve-status -s INT 2 "$eratrack" device replicate "$1" "/run/target/$1" || test $? = 4
    sed -i "s/\"cursor\": [0-9]*/\"cursor\": $bytes/" /scratch/eratrack/.replicas/*.json
    replicate "$1"
}
milliseconds() {
    echo $(($(date +%s%N) / 1000000))
}
mkdir -p /scratch/eratrack /run/target
mkfs.ext4 -q -F /dev/ubdb
mount /dev/ubdb /run/target
modprobe dm-era
modprobe dm-snapshot

sparse whole 1024
for round in 1 2 3 4 5 6 7 8 9 10; do
    start=$(milliseconds)
    replicate whole
    echo "unchanged $(($(milliseconds) - start))"
done

# 1 % of 256 GiB, written in one piece, and 256 MiB as every fourth block. The first round is the one that
# makes the files grow. What is compared: the same bytes to the same place, again, by dd.
sparse part 256
copied() {
    milliseconds=$(replicate part | tee /dev/stderr | sed 's/.*"milliseconds":\([0-9]*\).*/\1/')
    start=$(milliseconds)
    dd if=/dev/mapper/part of=/run/target/part bs=4M iflag=direct oflag=direct skip=2560 seek=2560 "count=$2" \
        conv=notrunc,fsync status=none
    if test "$3" -gt 0; then
        echo "$1 replicate $milliseconds"
        echo "$1 dd $(($(milliseconds) - start))"
    fi
}
for round in 0 1 2 3 4 5 6 7; do
    fio --name=x --filename=/dev/mapper/part --direct=1 --rw=write --bs=4M --offset=10G --size=2624M \
        --buffer_pattern=0x5a5aa5 --output=/dev/null
    copied piece 656 "$round"
    fio --name=x --filename=/dev/mapper/part --direct=1 --rw=write:768k --bs=256k --offset=10G --size=1G --io_size=256M \
        --buffer_pattern=0xa5a55a --output=/dev/null
    copied scattered 64 "$round"
done

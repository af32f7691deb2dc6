# Sectors: 1 GiB each for the two devices, 64 MiB of metadata; granularity 256 KiB.
size=2097152
dd if=/dev/zero of=/dev/ubdb bs=1M count=2176 oflag=direct conv=notrunc status=none
dmsetup create bare --table "0 $size linear /dev/ubdb 0"
dmsetup create metadata --table "0 131072 linear /dev/ubdb $((2 * size))"
dmsetup create tracked-base --table "0 $size linear /dev/ubdb $size"
dmsetup create tracked-era --table "0 $size era /dev/mapper/metadata /dev/mapper/tracked-base 512"
dmsetup create tracked --table "0 $size linear /dev/mapper/tracked-era 0"

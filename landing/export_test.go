package landing

import "github.com/sdr-sync/sdr-sync/pipeline"

// What the tests put between a Dir and its folder.
type (
	Disk     = disk
	DiskFile = diskFile
	RootDisk = rootDisk
)

// OpenOn opens a Dir over a disk of the test's.
func OpenOn(d Disk, keep int, now pipeline.Clock) (*Dir, error) { return openOn(d, keep, now) }

package failpoint

import "slices"

// Point is a moment in the life of a run.
type Point string

// The points, in the order in which a run comes to them. What is said of each is what stands and what does not when it is reached.
const (
	LeaseTake           Point = "lease.take"            // the leases are about to be taken
	LeaseTaken          Point = "lease.taken"           // the leases are taken and committed
	LeaseRenew          Point = "lease.renew"           // a lease is about to be prolonged
	LeaseRenewed        Point = "lease.renewed"         // a lease was prolonged
	LeaseRelease        Point = "lease.release"         // a lease is about to be given back
	LeaseReleased       Point = "lease.released"        // a lease was given back
	RunBegun            Point = "run.begun"             // the run is stored, nothing else is done
	RunEnding           Point = "run.ending"            // all work is done, the run's end is not stored
	RunEnded            Point = "run.ended"             // the run's end is stored, its leases are held
	TidyBegun           Point = "tidy.begun"            // landing files of earlier runs are about to be settled
	TokenAsk            Point = "token.ask"             // a token is about to be asked for
	TokenGot            Point = "token.got"             // a token has come
	JobCreate           Point = "job.create"            // a query job is about to be created
	JobCreated          Point = "job.created"           // the vendor has the job, the ledger has not
	JobSaved            Point = "job.saved"             // the ledger has the job, it was not polled
	PollAsk             Point = "poll.ask"              // the job is about to be polled
	PollAnswered        Point = "poll.answered"         // the answer is here and not in the ledger
	PageAsk             Point = "page.ask"              // a page is about to be asked for
	PageAnswered        Point = "page.answered"         // a page has come and is not landed
	LandingBegun        Point = "landing.begun"         // a new landing file has its header, its name may not be durable
	LandingAppend       Point = "landing.append"        // a page is about to be appended
	LandingAppended     Point = "landing.appended"      // a page is in the landing file, perhaps not durably
	LandingSynced       Point = "landing.synced"        // the landing file was synced amid a drain
	SurveyFinished      Point = "survey.finished"       // every page is landed and surveyed
	JobLandedSaved      Point = "job.landed-saved"      // the ledger says that the job has landed
	PartitionEnsure     Point = "partition.ensure"      // a partition is about to be created
	PartitionEnsured    Point = "partition.ensured"     // the partition is there, nothing is published
	PublishBegun        Point = "publish.begun"         // the publishing transaction is open
	PublishRetired      Point = "publish.retired"       // a window was retired, its successors are not written
	PublishWindowLocked Point = "publish.window-locked" // the window's row is read and locked
	PublishWindowStored Point = "publish.window-stored" // a new window's row is written
	CopyBegun           Point = "copy.begun"            // COPY is about to begin
	CopyMiddle          Point = "copy.middle"           // a buffer of rows was sent
	CopyEnded           Point = "copy.ended"            // the server has taken all rows
	MergeLoaded         Point = "merge.loaded"          // what came is in the temporary table
	MergeInserted       Point = "merge.inserted"        // new rows are in, vanished ones not yet out
	MergeDeleted        Point = "merge.deleted"         // vanished rows are out
	PublishRollup       Point = "publish.rollup"        // the daily sums are about to be replaced
	PublishQuarantine   Point = "publish.quarantine"    // the quarantine is about to be replaced
	PublishRestatement  Point = "publish.restatement"   // a restatement is about to be logged
	SnapshotDeleted     Point = "snapshot.deleted"      // vanished rows of a snapshot are out
	SnapshotInserted    Point = "snapshot.inserted"     // new rows of a snapshot are in
	HistoryClosed       Point = "history.closed"        // rows that stayed away are closed
	HistoryMarked       Point = "history.marked"        // absent rows are marked
	HistoryOpened       Point = "history.opened"        // new versions are open
	PublishUnchanged    Point = "publish.unchanged"     // an unchanged window's check is noted
	PublishGeneration   Point = "publish.generation"    // the window's generation is raised
	PublishDirty        Point = "publish.dirty"         // the touched partitions are marked
	PublishFenced       Point = "publish.fenced"        // the fencing token was checked
	PublishBeforeCommit Point = "publish.before-commit" // COMMIT is about to be sent
	PublishAfterCommit  Point = "publish.after-commit"  // the publication is committed, nobody knows
	SettleBegun         Point = "settle.begun"          // the landing file is about to become evidence
	SettleLinked        Point = "settle.linked"         // the evidence has its name, the job's file still has its own
	SettleUnlinked      Point = "settle.unlinked"       // the job's name is gone, older generations are not
	SettleDiscarded     Point = "settle.discarded"      // the landing file of an unchanged pull is gone
	ExportLocked        Point = "export.locked"         // the lake is locked, nothing is written
	ExportPinned        Point = "export.pinned"         // the lake's id is in the ledger
	ExportIdentity      Point = "export.identity"       // lake.json is written
	ExportCreated       Point = "export.created"        // a staged file is created and empty
	ExportWritten       Point = "export.written"        // a staged file is written and not synced
	ExportSynced        Point = "export.synced"         // the staged file is durable
	ExportReadBack      Point = "export.read-back"      // the staged file was read back
	ExportRename        Point = "export.rename"         // the staged file is about to replace the old one
	ExportRenamed       Point = "export.renamed"        // the new file is in place, its folder is not synced
	ExportMark          Point = "export.mark"           // the file is durable, the ledger does not know
	ExportMarked        Point = "export.marked"         // the ledger knows, the manifest does not
	ExportManifest      Point = "export.manifest"       // all files are in place, the manifest is old
	ExportManifested    Point = "export.manifested"     // the manifest is written
	VerifyBegun         Point = "verify.begun"          // all is published and exported, not verified
	MigrateBegun        Point = "migrate.begun"         // nothing is migrated
	MigrateSchema       Point = "migrate.schema"        // the schema is there without any table
	Migrated            Point = "migrate.done"          // the migrations are applied
)

// All lists every point.
func All() []Point {
	return []Point{
		LeaseTake, LeaseTaken, LeaseRenew, LeaseRenewed, LeaseRelease, LeaseReleased,
		RunBegun, RunEnding, RunEnded, TidyBegun, TokenAsk, TokenGot,
		JobCreate, JobCreated, JobSaved, PollAsk, PollAnswered, PageAsk,
		PageAnswered, LandingBegun, LandingAppend, LandingAppended, LandingSynced, SurveyFinished,
		JobLandedSaved, PartitionEnsure, PartitionEnsured, PublishBegun, PublishRetired, PublishWindowLocked,
		PublishWindowStored, CopyBegun, CopyMiddle, CopyEnded, MergeLoaded, MergeInserted,
		MergeDeleted, PublishRollup, PublishQuarantine, PublishRestatement, SnapshotDeleted, SnapshotInserted,
		HistoryClosed, HistoryMarked, HistoryOpened, PublishUnchanged, PublishGeneration, PublishDirty,
		PublishFenced, PublishBeforeCommit, PublishAfterCommit, SettleBegun, SettleLinked, SettleUnlinked,
		SettleDiscarded, ExportLocked, ExportPinned, ExportIdentity, ExportCreated, ExportWritten,
		ExportSynced, ExportReadBack, ExportRename, ExportRenamed, ExportMark, ExportMarked,
		ExportManifest, ExportManifested, VerifyBegun, MigrateBegun, MigrateSchema, Migrated,
	}
}

// CanFail tells whether the program looks at an error there: the others can only be survived or not.
func (p Point) CanFail() bool {
	return slices.Contains([]Point{
		LandingAppend, LandingAppended, PublishBegun, PublishBeforeCommit, ExportWritten, ExportRename, ExportMarked,
	}, p)
}

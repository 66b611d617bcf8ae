package parquet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/sdr-sync/sdr-sync/failpoint"
	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

// ExportOptions say what to export.
type ExportOptions struct {
	All   bool     // every partition, not only those that are dirty or damaged; also rebuilds a lost lake
	Sites []string // only these sites; empty means all. A list's partitions are of pipeline.Tenant's

	// Progress, where set, is called after each batch of rows, from one goroutine at a time. rowsTotal is the partition's rows at its
	// last export: a guess, and 0 before the first.
	Progress func(p pipeline.Partition, rowsDone, rowsTotal int64)
}

// Exported is what became of one partition that was read.
type Exported struct {
	pipeline.Partition
	File    pipeline.FileFacts
	Written bool // false: the same bytes stood there already, and the file was left untouched
}

// Summary is what an export did. After an error it is what was done until then.
type Summary struct {
	LakeID   string
	Exported []Exported // partitions read and marked, in order
	Clean    int        // partitions that needed nothing
	Rows     int64      // rows read
	Bytes    int64      // bytes of the files written
}

// Export brings the lake to what the database holds: partitions that are dirty, or whose file is missing, of another size, not in the
// manifest, or not what the ledger says, are read and written anew. Each file is staged beside the lake, synced, read back, renamed
// into place and marked in the ledger; the manifest comes last. The lake's lock is held throughout. Whatever interrupts an export,
// the next one completes it.
//
// Errors: ErrLakeMismatch, ErrLakeMissing and ErrLakeLocked, all before anything is written; ErrForeignFile, after everything is.
func (l *Lake) Export(ctx context.Context, store pipeline.PartitionStore, opt ExportOptions) (sum Summary, err error) {
	f, err := l.openFiles()
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	// Asked once before the lock, so that a refused export leaves no trace, and again under it.
	states, id, err := l.settle(ctx, f, store, opt.All)
	if err != nil || id == nil && len(states) == 0 { // while there is nothing to export, no lake is begun
		return sum, err
	}
	release, err := l.lock(ctx, f)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, release()) }()
	failpoint.Hit(failpoint.ExportLocked)

	if states, id, err = l.settle(ctx, f, store, opt.All); err != nil {
		return sum, err
	}
	if sum.LakeID, err = l.pin(ctx, store, id); err != nil {
		return sum, err
	}
	failpoint.Hit(failpoint.ExportPinned)
	if err := f.clear(l.staging()); err != nil {
		return sum, fmt.Errorf("clear staging folder %s: %w", l.stagingDir(), err)
	}
	if err := l.writeIdentity(f, sum.LakeID); err != nil {
		return sum, err
	}
	failpoint.Hit(failpoint.ExportIdentity)
	manifest, problem := l.readManifest(f, sum.LakeID)
	if problem != nil && !errors.Is(problem, fs.ErrNotExist) {
		l.log.Warn("the manifest can't be used, all partitions are exported", zap.Error(problem))
	}
	if problem != nil && exportedBefore(states) {
		opt.Sites = nil // a manifest without the other sites' files would be no consistent set
	}

	err = l.exportPartitions(ctx, f, store, opt, states, manifest, &sum)
	l.prune(manifest, states)
	if len(states) > 0 || !errors.Is(problem, fs.ErrNotExist) { // a stream that was never pulled gets no manifest
		// It tells the truth even if a partition failed: those before it are in place and marked.
		failpoint.Hit(failpoint.ExportManifest)
		err = errors.Join(err, l.writeManifest(f, manifest))
		failpoint.Hit(failpoint.ExportManifested)
	}
	if err != nil {
		return sum, errors.Join(err, f.clear(l.staging())) // a half file would fill a full disk
	}
	return sum, l.refuseForeign(f, states)
}

// Belongs tells whether an export would be refused: ErrLakeMismatch if lake, database and configuration don't belong together,
// ErrLakeMissing if the lake is gone. A run asks before it publishes anything.
func (l *Lake) Belongs(ctx context.Context, store pipeline.PartitionStore) (err error) {
	f, err := l.openFiles()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	_, id, err := l.settle(ctx, f, store, false)
	if err == nil && id != nil {
		_, err = l.pin(ctx, store, id)
	}
	return err
}

// partitions returns the ledger's partitions, whose paths are known to be good.
func (l *Lake) partitions(ctx context.Context, store pipeline.PartitionStore) ([]pipeline.PartitionState, error) {
	states, err := store.Partitions(ctx)
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	for _, s := range states {
		if _, err := l.partitionPath(s.Partition); err != nil {
			return nil, err
		}
	}
	return states, nil
}

// settle reads the ledger's partitions and the lake's identity (nil if there is no lake yet), and refuses what does not fit together. A
// lake that is gone is only rebuilt on demand, since its disk may just not be mounted. Nothing is written.
func (l *Lake) settle(
	ctx context.Context, f *files, store pipeline.PartitionStore, rebuild bool,
) (states []pipeline.PartitionState, id *Identity, err error) {
	if id, err = l.readIdentity(f); err != nil {
		return nil, nil, err
	}
	if states, err = l.partitions(ctx, store); err != nil {
		return nil, nil, err
	}
	if id != nil {
		return states, id, nil
	}
	lost, err := store.AnyExported(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("ask for exported files: %w", err)
	}
	if !lost {
		return states, nil, l.refuseStrangers(f)
	}
	if !rebuild {
		return nil, nil, fmt.Errorf("%w: the database has exported partitions, but %s holds no _meta/lake.json; mount its disk, or rebuild it "+
			"with sdr-sync export --all", ErrLakeMissing, l.Dir())
	}
	return states, nil, nil
}

// exportedBefore tells whether one of the partitions has a file.
func exportedBefore(states []pipeline.PartitionState) bool {
	return slices.ContainsFunc(states, func(s pipeline.PartitionState) bool { return s.File != (pipeline.FileFacts{}) })
}

// pin returns the lake's id: the one that the database pinned, else a new one. A lake that is there already must have it: each lake is
// begun by its own database, which knows its id before lake.json does.
func (l *Lake) pin(ctx context.Context, store pipeline.PartitionStore, id *Identity) (string, error) {
	pinned, err := store.PinLake(ctx, uuid.NewString())
	if err != nil {
		return "", fmt.Errorf("pin the lake: %w", err)
	}
	if id != nil && pinned != id.LakeID {
		return "", fmt.Errorf("%w: %s is lake %s, the database feeds lake %s", ErrLakeMismatch, l.Dir(), id.LakeID, pinned)
	}
	return pinned, nil
}

// refuseStrangers keeps a first export out of a folder that is used for something else.
func (l *Lake) refuseStrangers(f *files) error {
	entries, err := fs.ReadDir(f.root.FS(), l.base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read lake folder: %w", err)
	}
	for _, e := range entries {
		if e.Name() != "_meta" && e.Name() != "lost+found" {
			return fmt.Errorf("%w: %s is not empty and is no lake (it holds %q); choose an empty folder", ErrLakeMismatch, l.Dir(), e.Name())
		}
	}
	return nil
}

// exportPartitions exports what is stale, one partition after the other; but while one is encoded, the database already sorts the next.
func (l *Lake) exportPartitions(
	ctx context.Context, f *files, store pipeline.PartitionStore, opt ExportOptions,
	states []pipeline.PartitionState, manifest *Manifest, sum *Summary,
) error {
	stale, lost, clean, err := l.staleOnes(f, opt, states, manifest)
	if err != nil {
		return err
	}
	sum.Clean = clean
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	turn := make(chan struct{}) // closed when the partition before is done
	close(turn)
	for _, s := range stale {
		before, done := turn, make(chan struct{})
		turn = done
		g.Go(func() error {
			defer close(done)
			began := time.Now()
			var exported Exported
			err := pipeline.Guard(func() (err error) {
				exported, err = l.exportPartition(ctx, f, store, s.PartitionState, manifest, before, opt.Progress)
				return err
			})
			if err != nil {
				return fmt.Errorf("export partition %s: %w", l.label(s.Partition), err)
			}
			sum.Exported = append(sum.Exported, exported)
			sum.Rows += exported.File.Rows
			if exported.Written {
				sum.Bytes += exported.File.Bytes
			}
			l.log.Info("partition exported", zap.String("stream", l.cfg.Stream.Name), zap.Stringer("partition", s.Partition), zap.String("reason", s.reason),
				zap.Int64("rows", exported.File.Rows), zap.Int64("bytes", exported.File.Bytes), zap.Bool("written", exported.Written),
				zap.Duration("took", time.Since(began)))
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if len(lost) > 0 {
		return fmt.Errorf("%w: %s", ErrArchivedLost, strings.Join(lost, "; "))
	}
	return nil
}

// stalePartition is a partition to be exported, and why.
type stalePartition struct {
	pipeline.PartitionState
	reason string
}

// staleOnes chooses the partitions to export, and counts those that need nothing. lost tells of archived ones whose file can't be
// written again.
func (l *Lake) staleOnes(
	f *files, opt ExportOptions, states []pipeline.PartitionState, manifest *Manifest,
) (stale []stalePartition, lost []string, clean int, err error) {
	for _, s := range states {
		if len(opt.Sites) > 0 && !slices.Contains(opt.Sites, s.Site) {
			continue
		}
		reason, err := l.stale(f, manifest, s)
		switch {
		case err != nil:
			return nil, nil, 0, fmt.Errorf("export partition %s: %w", l.label(s.Partition), err)
		case s.Archived && reason != "":
			lost = append(lost, fmt.Sprintf("%s (%s)", l.label(s.Partition), reason))
		case !s.Archived && (reason != "" || opt.All):
			stale = append(stale, stalePartition{s, cmp.Or(reason, "all were asked for")})
		default:
			clean++
		}
	}
	return stale, lost, clean, nil
}

// prune drops entries of partitions that the ledger does not know; their files, if any, are foreign.
func (l *Lake) prune(manifest *Manifest, states []pipeline.PartitionState) {
	known := l.paths(states)
	manifest.Files = slices.DeleteFunc(manifest.Files, func(e Entry) bool { _, ok := known[e.Path]; return !ok })
}

// paths maps the file of each partition, relative to the lake root, to its state.
func (l *Lake) paths(states []pipeline.PartitionState) map[string]pipeline.PartitionState {
	paths := make(map[string]pipeline.PartitionState, len(states))
	for _, s := range states {
		if path, err := l.partitionPath(s.Partition); err == nil { // the others were refused when the ledger was read
			paths[path] = s
		}
	}
	return paths
}

// stale says why the partition must be exported, or "".
func (l *Lake) stale(f *files, manifest *Manifest, s pipeline.PartitionState) (reason string, err error) {
	if s.DirtySeq > s.ExportedSeq {
		return "it is dirty", nil
	}
	path, err := l.partitionPath(s.Partition)
	if err != nil {
		return "", err
	}
	entry, found := manifest.entry(path)
	switch {
	case !found:
		return "the manifest does not name it", nil
	case entry.Facts() != s.File:
		return "manifest and ledger disagree", nil
	case entry.SchemaVersion != l.cfg.Stream.Version || entry.HashVersion != record.HashVersion:
		return "its schema or hash version is old", nil
	}
	size, present, err := f.regular(l.base + "/" + path)
	switch {
	case err != nil:
		return "", err
	case !present:
		return "its file is missing", nil
	case size != entry.Bytes:
		return "its file has another size", nil
	}
	return "", nil
}

// exportPartition reads one partition in one snapshot and, once its turn has come, puts its file in place.
func (l *Lake) exportPartition(
	ctx context.Context, f *files, store pipeline.PartitionStore, s pipeline.PartitionState, manifest *Manifest, turn <-chan struct{},
	progress func(p pipeline.Partition, rowsDone, rowsTotal int64),
) (Exported, error) {
	path, err := l.partitionPath(s.Partition)
	if err != nil {
		return Exported{}, err
	}
	staged := l.staging() + "/" + strings.ReplaceAll(path, "/", "+")
	var entry Entry
	read := func(state pipeline.PartitionState, windows []pipeline.PublishedWindow, rows iter.Seq2[*record.Row, error]) (err error) {
		rows, stop := peek(rows)
		defer stop()
		select {
		case <-turn:
		case <-ctx.Done():
		}
		if ctx.Err() != nil { // the partition before failed, which ends its turn too
			return context.Cause(ctx)
		}
		entry, err = l.stage(ctx, f, staged, state, rows, progress)
		entry.Path = path
		entry.Windows = slices.SortedFunc(slices.Values(windows), func(a, b pipeline.PublishedWindow) int { return cmp.Compare(a.WindowID, b.WindowID) })
		return err
	}
	if err := store.ReadPartition(ctx, s.Partition, read); err != nil {
		return Exported{}, err
	}
	failpoint.Hit(failpoint.ExportSynced)
	if err := l.readBack(f, staged, entry); err != nil {
		return Exported{}, err
	}
	failpoint.Hit(failpoint.ExportReadBack)
	written, err := l.publish(f, staged, entry)
	if err != nil {
		return Exported{}, err
	}
	failpoint.Hit(failpoint.ExportMark)
	if err := store.MarkExported(ctx, s.Partition, entry.DirtySeq, entry.Facts()); err != nil {
		return Exported{}, fmt.Errorf("mark exported: %w", err)
	}
	if err := failpoint.Err(failpoint.ExportMarked); err != nil {
		return Exported{}, err
	}
	manifest.put(entry)
	return Exported{Partition: s.Partition, File: entry.Facts(), Written: written}, nil
}

// peek waits for the first row, so that the query behind rows has done its sorting, and returns the same rows. stop must be called.
func peek(rows iter.Seq2[*record.Row, error]) (peeked iter.Seq2[*record.Row, error], stop func()) {
	next, stop := iter.Pull2(rows)
	row, err, ok := next()
	return func(yield func(*record.Row, error) bool) {
		for ; ok; row, err, ok = next() {
			if !yield(row, err) {
				return
			}
		}
	}, stop
}

// stage writes the rows as a synced file beside the lake.
func (l *Lake) stage(
	ctx context.Context, f *files, staged string, state pipeline.PartitionState, rows iter.Seq2[*record.Row, error],
	progress func(p pipeline.Partition, rowsDone, rowsTotal int64),
) (Entry, error) {
	fw := &fileWriter{layout: l.layout, schema: l.schema, tally: newTally(l.layout, state.Partition), group: rowGroupRows}
	if progress != nil {
		fw.progress = func(done int64) { progress(state.Partition, done, state.File.Rows) }
	}
	file, err := f.create(staged)
	if err != nil {
		return Entry{}, fmt.Errorf("stage file: %w", err)
	}
	failpoint.Hit(failpoint.ExportCreated)
	out, err := fw.write(ctx, &stepWriter{files: f, file: file, name: staged}, rows)
	if err != nil {
		return Entry{}, errors.Join(err, file.Close())
	}
	if err := failpoint.Err(failpoint.ExportWritten); err != nil {
		return Entry{}, errors.Join(err, file.Close())
	}
	if err := f.sync(file); err != nil {
		return Entry{}, fmt.Errorf("stage file: %w", err)
	}
	entry := Entry{
		Site: state.Site, Partition: partitionName(state.Partition), Bytes: out.size, SHA256: out.sha256(), DirtySeq: state.DirtySeq,
		SchemaVersion: l.cfg.Stream.Version, HashVersion: record.HashVersion, Writer: WriterVersion,
	}
	fw.tally.fill(&entry)
	return entry, nil
}

// publish renames the staged file over the partition's, unless the same bytes stand there already.
func (l *Lake) publish(f *files, staged string, entry Entry) (written bool, err error) {
	final := l.base + "/" + entry.Path
	size, present, err := f.regular(final)
	if err != nil {
		return false, fmt.Errorf("publish file: %w", err)
	}
	if present && size == entry.Bytes {
		_, sum, err := f.hashFile(final)
		if err != nil {
			return false, fmt.Errorf("publish file: %w", err)
		}
		if sum == entry.SHA256 {
			return false, f.remove(staged)
		}
	}
	if err := f.rename(staged, final); err != nil {
		return false, fmt.Errorf("publish file: %w", l.explainRename(err))
	}
	return true, nil
}

// refuseForeign reports Parquet files inside the lake that belong to no partition of the ledger: readers would count their rows.
func (l *Lake) refuseForeign(f *files, states []pipeline.PartitionState) error {
	foreign, err := l.foreign(f, states)
	if err != nil {
		return err
	}
	foreign = slices.DeleteFunc(foreign, func(path string) bool { return !strings.HasSuffix(strings.ToLower(path), ".parquet") })
	if len(foreign) == 0 {
		return nil
	}
	return fmt.Errorf("%w: move it away: %s", ErrForeignFile, strings.Join(foreign, ", "))
}

// foreign lists what stands where this stream answers for the lake but is no file of a partition of the ledger nor the lake's own
// metadata. A list answers for its own folders, the metering records for all that is in no other stream's. Paths are relative to the
// lake root.
func (l *Lake) foreign(f *files, states []pipeline.PartitionState) ([]string, error) {
	known := l.paths(states)
	own := []string{l.identityPath(), l.manifestPath()}
	tops, others := []string{l.streamDir(l.cfg.Stream.Name), l.metaDir(l.cfg.Stream.Name)}, map[string]bool{}
	if !l.cfg.Stream.IsList() {
		tops = []string{l.base}
		for _, name := range l.others {
			others[l.streamDir(name)], others[l.metaDir(name)] = true, true
		}
	}
	var foreign []string
	for _, top := range tops {
		err := fs.WalkDir(f.root.FS(), top, func(name string, d fs.DirEntry, err error) error {
			path := strings.TrimPrefix(name, l.base+"/")
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil:
				return err
			case d.IsDir() && others[name]:
				return fs.SkipDir
			case d.IsDir() || slices.Contains(own, name):
				return nil
			}
			if _, ok := known[path]; !ok {
				foreign = append(foreign, path)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("look for foreign files: %w", err)
		}
	}
	return foreign, nil
}

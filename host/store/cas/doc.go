// Package cas keeps a context in content-addressed blobs under a root object that
// is swapped by compare-and-set, on anything that can do that much: see Remote.
//
//	s, err := cas.Open(ctx, remote, cas.Config{CacheDir: dir})
//
// Package s3 has a Remote for buckets, natsobj one for NATS JetStream; castest the
// suite that a Remote passes, and one in memory.
//
// # What is in the bucket
//
// One root, of at most 256 KiB, and blobs of at most 1 MiB. A blob is named by its
// epoch (below) and the SHA-256 of its bytes, and never changes. It is either a page
// of a tree or contents: of one file, or of several small ones after each other.
//
// The root holds two sorted tables. Each is a tree of pages of 32 KiB (a page is
// sorted entries; above the leaves they name pages one level down), and over that
// the changes since the tree was written, in the root itself, up to 24 KiB. So a
// small commit writes the root and nothing else; when the changes no longer fit,
// they go into the tree, of which the pages on the way to them are written anew.
//
// The files' table has an entry for each name, by the directory's number and the
// name, and one for each chunk of 1 MiB of a file, by the file's number and the
// chunk's place, that says of which pieces of blobs it consists. Up to 2 KiB of a
// chunk are in the entry itself. What is written to a file becomes a new piece among
// the old ones, so that a line appended to a gigabyte costs the line; pieces that
// get many are joined. A directory that moves is one entry that changes.
//
// The log's table has each entry by its sequence number, and that by its key: one is
// found by looking into as many pages as a tree is high, three for millions. Root,
// pages, nodes and pieces are specified in root.go, page.go and node.go.
//
// # Commits
//
// A transaction works on one state: the root as it was when it began, and what that
// refers to. States do not change, so views wait for nobody and nobody for them. A
// commit
//
//  1. puts the contents of files into blobs, some at a time, and then pages, if any;
//  2. swaps the root, if that is still the one which it builds on. That is the
//     commit: before it nothing refers to the blobs, after it everything does.
//
// Has another worker been quicker, then the new root is read. If that differs in the
// log alone, the same changes are built on top of it and the swap is tried again; if
// the files were changed too, whichever they are, it is store.ErrConflict and the
// script runs again: what it read may have changed, even if it changes no file itself.
// What a view appends, the receipt of a script that only reads or that failed, never
// conflicts. A key that is
// in the log meanwhile is store.ErrExists. So updates are serial, across all
// workers and in the order of the log: each saw what all before it did.
//
// # When there is no answer
//
// Requests are made again, a few times and with a pause that grows, except the swap.
// A swap without an answer may have been carried out, or be yet. So the root is
// read back. Each root has an id that was drawn for it and the ids of the 64 before
// it: if ours is among them it was carried out; if the root is another that does not
// come from ours it was not, and never will be, since its condition no longer holds;
// if it is still the old one, the same swap is made again, and cannot be carried out
// twice either. If all that finds nothing out within SettleTime, the error is
// store.ErrUnknown. Nothing needs to be opened again after that: the store goes on
// with what the bucket has. The host then logs that the script failed, under the
// script's key: that succeeds only if the swap did not, and makes it impossible; if it
// is store.ErrExists, the script's own receipt is there.
//
// # What is believed
//
// Nothing. Blobs are compared with their digests, on arrival and when they come from
// the cache's directory, and everything is decoded within bounds: a page says its
// level and must begin and end where the page above says, so no tree is larger than
// what was stored for it. The root has a checksum, and must come from the last one
// that this worker saw: a bucket that was set back, or that took two swaps with one
// condition, has lost commits, and is a *DamageError from then on. What is missing or
// wrong is an error, never an empty file or a file that is not there. What cannot be
// seen is a root that was exchanged for an older one, or made up by somebody who may
// write to the bucket, while no worker ran: receipts in the log are signed, files are
// not. Check reads everything.
//
// # Garbage
//
// Blobs that nothing refers to are deleted by Collect. The danger in that is a blob
// which nobody refers to yet, or no longer, but somebody is about to. Ages and clocks
// do not rule it out: a worker can sleep for an hour between putting and swapping.
// Epochs do. The root says which one it is, and what is put on top of that root is
// named with it. Collect first commits the next epoch. From then on a commit of the
// old one fails, since its root is no longer there; and one of the new epoch refers
// to what the root refers to, or has put it itself, with the new epoch in the name.
// So what the root of the new epoch does not refer to, and is of an older one, will
// never be referred to again, however late a request arrives.
//
// # Costs
//
// A transaction asks once whether the root has changed, which a bucket answers
// without sending it. Then (TestCosts) a small commit is 1 request, the swap, of
// 16 KiB on average, and now and then some pages, put all at once; 1,000 new files of
// 3 kB are 15 requests; a line appended to 1 GiB is what a small commit is. Against versitygw on the same machine
// (BenchmarkCommit of package s3): 2.8 ms for a log entry, 3.3 ms with 100 bytes
// appended to a file, 7 ms with 100 kB written, 85 ms with 10 MB; so on a bucket far
// away a small commit takes two round trips and a large one three. Workers that
// change the files of one context at the same time take turns by failing, and each
// conflict is a run for nothing: give a peer one worker, and others for when that is
// gone.
package cas

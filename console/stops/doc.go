// Package stops is the console's pages about stopping: the question before the red button, an order to stop with its progress and its
// receipt, the list of orders, and receipts as files.
//
// It owns how stops are asked for and shown. What a stop does is scheduler's; other pages only lead here.
package stops

// Package seal encrypts the few secrets that Ambit must be able to read again: the instance's signing key, mail that waits to be sent,
// and later the credentials of connections.
//
// It is envelope encryption: each sealed value has a data key of its own (AES-256-GCM, by Tink), and the data key is encrypted under the
// master key. The master key comes from the configuration or from a file in the data directory, which is made on the first start; it is
// never stored in a database. What need not be read again, such as passwords and API keys, is hashed by its owner and never comes here.
//
// It owns the master key's form, its file and the sealed value's form. It knows no domain and no database, and imports only Tink.
package seal

//! Binary COPY: rows in PostgreSQL's format, and sending them.

use bytes::{BufMut, Bytes, BytesMut};
use futures::SinkExt;
use tokio_postgres::types::{IsNull, ToSql, Type};
use tokio_postgres::{Client, CopyInSink};

use graphsink_benches::contestant::Result;

/// The size of a message in bytes; psql sends 8 KiB, larger pieces cost less.
const PIECE: usize = 64 << 10;

/// Sends rows from memory.
pub(crate) async fn copy(client: &Client, sql: &str, data: &Bytes) -> Result<()> {
    let sink: CopyInSink<Bytes> = client.copy_in(sql).await?;
    let mut sink = std::pin::pin!(sink);
    let mut left = data.clone();
    while !left.is_empty() {
        let piece = left.split_to(left.len().min(PIECE));
        sink.feed(piece).await?;
    }
    sink.finish().await?;
    Ok(())
}

/// Rows in PostgreSQL's binary COPY format. An enum's binary form is its label.
pub(crate) struct Rows(BytesMut);

impl Default for Rows {
    fn default() -> Self {
        let mut bytes = BytesMut::new();
        bytes.put_slice(b"PGCOPY\n\xff\r\n\0");
        bytes.put_i64(0);
        Self(bytes)
    }
}

impl Rows {
    pub(crate) fn row(&mut self, fields: i16) {
        self.0.put_i16(fields);
    }

    pub(crate) fn field(&mut self, value: &(dyn ToSql + Sync), of_type: &Type) {
        let at = self.0.len();
        self.0.put_i32(-1);
        match value.to_sql_checked(of_type, &mut self.0).expect("the value fits the type that is named beside it") {
            IsNull::Yes => {}
            IsNull::No => {
                let length = (self.0.len() - at - 4) as i32;
                self.0[at..at + 4].copy_from_slice(&length.to_be_bytes());
            }
        }
    }

    pub(crate) fn finish(mut self) -> Bytes {
        self.0.put_i16(-1);
        self.0.freeze()
    }
}

//! Formats that a COPY writes, with their options.
//!
//! Invariant: options arrive as they were given, or the COPY is refused.

use std::sync::Arc;

use datafusion::common::config::{CsvOptions, JsonOptions, TableParquetOptions};
use datafusion::common::parsers::CsvQuoteStyle;
use datafusion::datasource::file_format::FileFormatFactory;
use datafusion::datasource::file_format::arrow::ArrowFormatFactory;
use datafusion::datasource::file_format::csv::CsvFormatFactory;
use datafusion::datasource::file_format::json::JsonFormatFactory;
use datafusion::datasource::file_format::parquet::ParquetFormatFactory;
use datafusion::error::{DataFusionError, Result};
use datafusion_proto::protobuf;
use prost::Message;
use tidemill_core::Error;

use crate::error::to_datafusion;

/// A format's name, and its options; none where the session's settings hold.
pub(super) fn encode(factory: &dyn FileFormatFactory) -> Result<(&'static str, Option<Vec<u8>>)> {
    if let Some(parquet) = factory.downcast_ref::<ParquetFormatFactory>() {
        let Some(options) = &parquet.options else { return Ok(("PARQUET", None)) };
        let proto = protobuf::TableParquetOptions::from(parquet);
        return kept("PARQUET", options, &TableParquetOptions::try_from(&proto)?, &proto);
    }
    if let Some(csv) = factory.downcast_ref::<CsvFormatFactory>() {
        let Some(options) = &csv.options else { return Ok(("CSV", None)) };
        let mut proto = protobuf::CsvOptions::from(csv);
        // The stock encoding numbers them in another order than it reads them.
        proto.quote_style = match options.quote_style {
            CsvQuoteStyle::Necessary => protobuf::CsvQuoteStyle::Necessary,
            CsvQuoteStyle::Always => protobuf::CsvQuoteStyle::Always,
            CsvQuoteStyle::NonNumeric => protobuf::CsvQuoteStyle::NonNumeric,
            CsvQuoteStyle::Never => protobuf::CsvQuoteStyle::Never,
        }
        .into();
        return kept("CSV", options, &CsvOptions::from(&proto), &proto);
    }
    if let Some(json) = factory.downcast_ref::<JsonFormatFactory>() {
        let Some(options) = &json.options else { return Ok(("JSON", None)) };
        let proto = protobuf::JsonOptions::from(json);
        return kept("JSON", options, &JsonOptions::from(&proto), &proto);
    }
    if factory.downcast_ref::<ArrowFormatFactory>().is_some() {
        return Ok(("ARROW", None));
    }
    Err(DataFusionError::Plan("this format cannot be written: use PARQUET, CSV or JSON".to_owned()))
}

fn kept<T: PartialEq>(
    format: &'static str,
    given: &T,
    arriving: &T,
    proto: &impl Message,
) -> Result<(&'static str, Option<Vec<u8>>)> {
    if given == arriving {
        return Ok((format, Some(proto.encode_to_vec())));
    }
    Err(to_datafusion(Error::invalid(format!(
        "an option of {format} that is set here cannot be sent: give `None` for the session's settings, or write with COPY \
         and its OPTIONS"
    ))))
}

/// The format that a COPY writes, with the client's options or, without any, the session's.
pub(super) fn decode(format: &str, options: Option<&[u8]>) -> Result<Arc<dyn FileFormatFactory>> {
    let damaged = |e: prost::DecodeError| DataFusionError::External(Box::new(e));
    Ok(match (format, options) {
        ("PARQUET", None) => Arc::new(ParquetFormatFactory::new()),
        ("PARQUET", Some(bytes)) => {
            let proto = protobuf::TableParquetOptions::decode(bytes).map_err(damaged)?;
            Arc::new(ParquetFormatFactory::new_with_options(TableParquetOptions::try_from(&proto)?))
        }
        ("CSV", None) => Arc::new(CsvFormatFactory::new()),
        ("CSV", Some(bytes)) => {
            let proto = protobuf::CsvOptions::decode(bytes).map_err(damaged)?;
            Arc::new(CsvFormatFactory::new_with_options(CsvOptions::from(&proto)))
        }
        ("JSON", None) => Arc::new(JsonFormatFactory::new()),
        ("JSON", Some(bytes)) => {
            let proto = protobuf::JsonOptions::decode(bytes).map_err(damaged)?;
            Arc::new(JsonFormatFactory::new_with_options(JsonOptions::from(&proto)))
        }
        ("ARROW", None) => Arc::new(ArrowFormatFactory::new()),
        (other, _) => {
            return Err(DataFusionError::Plan(format!("{other} cannot be written: use PARQUET, CSV or JSON")));
        }
    })
}

#[cfg(test)]
mod tests {
    use datafusion::common::config::{CsvOptions, TableParquetOptions};
    use datafusion::common::parsers::CsvQuoteStyle;
    use datafusion::datasource::file_format::csv::CsvFormatFactory;
    use datafusion::datasource::file_format::parquet::ParquetFormatFactory;
    use datafusion::error::Result;

    use super::{decode, encode};

    #[test]
    fn options_arrive_as_they_were_given() -> Result<()> {
        for quote_style in
            [CsvQuoteStyle::Necessary, CsvQuoteStyle::Always, CsvQuoteStyle::NonNumeric, CsvQuoteStyle::Never]
        {
            let options = CsvOptions { delimiter: b';', quote_style, ..CsvOptions::default() }.with_has_header(false);
            let (name, bytes) = encode(&CsvFormatFactory::new_with_options(options.clone()))?;
            let decoded = decode(name, bytes.as_deref())?;
            assert_eq!(decoded.downcast_ref::<CsvFormatFactory>().and_then(|csv| csv.options.clone()), Some(options));
        }
        let mut options = TableParquetOptions::default();
        options.global.compression = Some("gzip(4)".to_owned());
        let (name, bytes) = encode(&ParquetFormatFactory::new_with_options(options.clone()))?;
        let decoded = decode(name, bytes.as_deref())?;
        assert_eq!(decoded.downcast_ref::<ParquetFormatFactory>().and_then(|p| p.options.clone()), Some(options));
        Ok(())
    }

    #[test]
    fn options_that_the_encoding_lacks_are_refused() {
        let mut options = TableParquetOptions::default();
        options.key_value_metadata.insert("key".to_owned(), None);
        let refused = encode(&ParquetFormatFactory::new_with_options(options)).err().map(|e| e.to_string());
        assert!(refused.as_ref().is_some_and(|text| text.contains("cannot be sent")), "{refused:?}");
    }
}
